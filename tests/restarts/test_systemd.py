"""The units in `deploy/systemd`, and the server under what systemd would be to it."""

import asyncio
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.app import CLOSE_SECONDS, FLUSH_SECONDS, RECONNECTS_PER_SECOND
from server.files import FILES_RESERVED
from server.pools import GRACE_SECONDS
from server.sessions import END_SECONDS
from server.settings import Settings
from server.sockets import activated
from tests.raw import online, raw
from tests.restarts.test_replacement import VISITORS, VISITS, ended, visit
from tests.server_process import ROOT, ServerProcess

UNITS = ROOT / "deploy/systemd"
EXPOSURE_MAX = 1.5
"""Of 10; what a service with network and state can hardly be below is 1."""
_ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a"}
os.execv(sys.executable, [sys.executable, "-m", "server", "serve"])
"""


class Service(ServerProcess):
    """A server that was handed `listener`, which goes on when the server does not."""

    def __init__(self, directory: Path, listener: socket.socket) -> None:
        super().__init__(directory, handlers="tests.integration.handlers:handlers")
        self.port = listener.getsockname()[1]
        self._listener = listener

    def environment(self) -> dict[str, str]:
        return super().environment() | {"QUEUESYSTEM_PORT": "0"}

    def spawn(self) -> None:
        descriptor = self._listener.fileno()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _ACTIVATE, str(descriptor)],
                cwd=self.directory,
                env=self.environment(),
                pass_fds=[descriptor],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as one:
        yield one


class Told:
    """What listens to the notifications of a server."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(60)

    async def next(self, start: str) -> str:
        """Return the next message that begins with that, passing over others."""
        while True:
            message = (await asyncio.to_thread(self._socket.recv, 4096)).decode()
            if message.startswith(start):
                return message

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    made = Told(tmp_path / "notify")
    yield made
    made.close()


@pytest.fixture
def notifying(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ServerProcess]:
    """A server that tells `told`, not started yet."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    server = ServerProcess(
        tmp_path, handlers="tests.integration.handlers:handlers", drain_timeout=60
    )
    yield server
    server.close()


# Notifications


async def test_it_says_that_it_is_ready_when_it_serves(
    notifying: ServerProcess, told: Told
) -> None:
    notifying.spawn()
    assert await told.next("READY=1") == f"READY=1\nSTATUS=serving {notifying.url}"
    await visit(notifying.url)


async def test_it_says_that_it_stops_while_requests_still_run(
    notifying: ServerProcess, told: Told, tmp_path: Path
) -> None:
    await notifying.astart()
    gate = tmp_path / "gate"
    async with raw(notifying.url) as client:
        await client.hello(started=True)
        params = {"path": str(tmp_path / "runs"), "gate": str(gate)}
        await client.request("a", "append", params=params)
        await client.next("started")
        assert notifying.process is not None
        notifying.process.terminate()
        await told.next("STOPPING=1")
        gate.touch()
        await client.next("done", "a")
    assert await ended(notifying) == 0


async def test_it_keeps_the_watchdog_quiet(
    notifying: ServerProcess, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    notifying.spawn()
    await told.next("READY=1")
    for _ in range(3):
        await told.next("WATCHDOG=1")


# Socket activation


async def test_it_serves_on_the_socket_it_was_handed(
    tmp_path: Path, listener: socket.socket
) -> None:
    service = Service(tmp_path, listener)
    try:
        service.spawn()
        await visit(service.url)
        assert f'"url": "{service.url}"' in service.log.read_text()
    finally:
        service.close()


async def test_clients_are_asked_to_come_back_at_once_to_a_socket_that_stays(
    tmp_path: Path, listener: socket.socket
) -> None:
    service = Service(tmp_path, listener)
    try:
        await service.astart()
        async with online(service.url) as client:
            assert service.process is not None
            service.process.terminate()
            wait = (await client.next("goaway"))["reconnect_after"]
        assert wait <= 1 / RECONNECTS_PER_SECOND
    finally:
        service.close()


async def test_nobody_is_refused_while_it_is_restarted(
    tmp_path: Path, listener: socket.socket
) -> None:
    service = Service(tmp_path, listener)
    restarted = asyncio.Event()

    async def visitor() -> None:
        while not restarted.is_set():
            await visit(service.url)
        for _ in range(VISITS):
            await visit(service.url)

    try:
        await service.astart()
        async with asyncio.TaskGroup() as visitors:
            for _ in range(VISITORS):
                visitors.create_task(visitor())
            assert await asyncio.to_thread(service.terminate) == 0
            await service.astart()
            restarted.set()
    finally:
        service.close()


def test_sockets_for_another_process_are_not_taken() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a", "PATH": "/bin"}
    assert activated(environ) == []
    assert environ == {"PATH": "/bin"}


# The units


@pytest.fixture
def units(tmp_path: Path) -> list[str]:
    """The units, for this clone in the place of /opt/queuesystem."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (Debian: apt-get install systemd)")
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/opt/queuesystem", str(ROOT))
        (tmp_path / unit.name).write_text(text)
    return [str(tmp_path / unit.name) for unit in UNITS.iterdir()]


def analyze(*arguments: str) -> str:
    """Run systemd-analyze, which must find nothing wrong; return what it prints."""
    command = ["systemd-analyze", "--no-pager", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_systemd_understands_the_units(units: list[str]) -> None:
    assert analyze("verify", "--man=no", *units) == ""


def test_the_service_can_do_little_beyond_its_work(units: list[str]) -> None:
    service = next(unit for unit in units if unit.endswith(".service"))
    said = analyze("security", "--offline=true", service)
    overall = re.search(r"Overall exposure level .*: ([0-9.]+)", said)
    assert overall is not None
    assert float(overall[1]) <= EXPOSURE_MAX


def test_the_service_may_have_as_many_files_open_as_it_has_connections() -> None:
    text = (UNITS / "queuesystem.service").read_text()
    limit = re.search(r"^LimitNOFILE=(\d+)$", text, re.MULTILINE)
    assert limit is not None
    assert int(limit[1]) >= Settings().max_connections + FILES_RESERVED


def test_the_service_gets_the_time_its_drain_takes() -> None:
    text = (UNITS / "queuesystem.service").read_text()
    seconds = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert seconds is not None
    after = END_SECONDS + FLUSH_SECONDS + CLOSE_SECONDS + GRACE_SECONDS
    assert float(seconds[1]) > Settings().drain_timeout + after
