"""What systemd is told, and what it asks for by the environment."""

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.notify import Notifier

PID = str(os.getpid())


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """What listens to notifications."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(str(tmp_path / "notify"))
        yield one


def told(systemd: socket.socket) -> list[str]:
    return systemd.recv(4096).decode().split("\n")


def test_readiness_has_a_status(systemd: socket.socket) -> None:
    Notifier({"NOTIFY_SOCKET": systemd.getsockname()}).ready("serving ws://here")
    assert told(systemd) == ["READY=1", "STATUS=serving ws://here"]


def test_the_name_may_be_in_no_file_system() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("")  # the system chooses a name, which begins with a zero byte
        Notifier({"NOTIFY_SOCKET": "@" + systemd.getsockname()[1:].decode()}).stopping("now")
        assert told(systemd) == ["STOPPING=1", "STATUS=now"]


def test_nothing_is_left_for_children() -> None:
    asked = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": PID}
    environ = {**asked, "PATH": "/bin"}
    Notifier(environ)
    assert environ == {"PATH": "/bin"}


def test_nobody_asks_and_nobody_is_told() -> None:
    notifier = Notifier({})
    notifier.ready("serving")
    asyncio.run(notifier.keep_alive())  # it would go on for ever


def test_systemd_that_does_not_listen_is_no_failure(tmp_path: Path) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).ready("serving")


@pytest.mark.parametrize(
    ("pid", "seconds"), [({}, 3.0), ({"WATCHDOG_PID": PID}, 3.0), ({"WATCHDOG_PID": "1"}, None)]
)
def test_the_watchdog_is_for_the_process_it_names(
    pid: dict[str, str], seconds: float | None
) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000", **pid})
    assert notifier.watchdog_seconds == seconds
