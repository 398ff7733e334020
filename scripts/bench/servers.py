"""The servers under load: real processes on a core of their own, started and ended here.

with on_core(cores, SERVER): spawn -> wait for /readyz -> settle -> (load) -> SIGTERM -> SIGKILL
"""

import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from scripts.ports import free_port
from server.tokens import issue_token

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 15.0
DRAIN_SECONDS: Final = 2.0
"""What the server gives running requests at its end; the load has none by then."""
PROBE_SECONDS: Final = 5.0
SETTLE_SECONDS: Final = 10.0
"""How long a started server gets to become idle (it may have an earlier journal to tidy up)."""
IDLE_SECONDS: Final = 0.3
IDLE_CPU: Final = 0.05
"""A server is idle when it used less than this share of a core for IDLE_SECONDS."""
TOKEN_SECONDS: Final = 24 * 3600.0
SERVER_LOG: Final = "server.log"
ECHO_SERVER: Final = Path(__file__).with_name("echo_server.py")


class ServerFailed(Exception):
    """A server did not start."""


class Cores(NamedTuple):
    """Which core the server has to itself, and which the load."""

    server: int
    load: int


def two_cores() -> Cores | None:
    """Return the cores to use, or None when there are no two that this process may choose."""
    if not hasattr(os, "sched_setaffinity"):
        return None  # not Linux
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(allowed[0], allowed[1]) if len(allowed) > 1 else None


@contextmanager
def on_core(core: int | None) -> Generator[None]:
    """Run what is inside on that core only; a process started there stays on it."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Server:
    """A server that is ready at `url` (the path of its WebSocket is the dialect's)."""

    def __init__(self, process: "subprocess.Popen[bytes]", url: str) -> None:
        self.url = url
        self._process = process

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    def cpu_seconds(self) -> float:
        """Return what all its threads have used so far; 0 where /proc does not tell."""
        try:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii")
        except OSError:
            return 0.0
        # proc(5): field 3 follows the name in parentheses; 14 is user time, 15 system time.
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def private_bytes(self) -> int:
        """Return the memory it has written to and shares with nobody (Private_Dirty).

        That is the heap; what it shares with other processes does not move the number. What the
        kernel keeps for its sockets is not in it. Raises OSError where /proc does not tell.
        """
        rollup = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text(encoding="ascii")
        (line,) = (line for line in rollup.splitlines() if line.startswith("Private_Dirty:"))
        return int(line.split()[1]) * 1024

    def check(self) -> None:
        """Raise ServerFailed when the process has ended."""
        if self._process.poll() is not None:
            raise ServerFailed("the server ended by itself")

    def kill(self) -> None:
        """SIGKILL, as a crash would have it."""
        self._process.kill()
        self._process.wait()

    def settle(self) -> None:
        """Wait until it has nothing to do, for SETTLE_SECONDS at most."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            before = self.cpu_seconds()
            time.sleep(IDLE_SECONDS)
            if self.cpu_seconds() - before <= IDLE_CPU * IDLE_SECONDS:
                return


@contextmanager
def echo_server(
    directory: Path, core: int | None, loop: str, max_message_bytes: int
) -> Generator[Server]:
    """Run the bare server on that event loop (see echo_server.py)."""
    port = free_port()
    command = [sys.executable, str(ECHO_SERVER), str(port), loop, str(max_message_bytes)]
    with process(command, os.environ, directory / "echo.log", core) as echo:
        yield _ready(echo, f"127.0.0.1:{port}")


@contextmanager
def queue_server(
    directory: Path,
    core: int | None,
    secret: str,
    settings: Mapping[str, object],
    *,
    command: Sequence[str] = ("-m", "server", "serve"),
    wait: bool = True,
) -> Generator[Server]:
    """Run queueSystem with these settings (by name) on top of its defaults.

    `command` is what Python is to run. Without `wait` the process was only just begun.
    """
    port = free_port()
    ours = {
        "port": port,
        "admin_port": 0,
        "jwt_secret": secret,
        "log_format": "json",
        "drain_timeout": DRAIN_SECONDS,
    } | dict(settings)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("QUEUESYSTEM_")}
    environment |= {f"QUEUESYSTEM_{name.upper()}": str(value) for name, value in ours.items()}
    log = directory / SERVER_LOG
    with process([sys.executable, *command], environment, log, core) as server:
        address = f"127.0.0.1:{port}"
        yield _ready(server, address) if wait else Server(server, f"ws://{address}")


def new_secret() -> str:
    """Return a secret for one run."""
    return secrets.token_hex(32)


def token(secret: str, subject: str) -> str:
    """Return a token that a server with this secret takes."""
    return issue_token(
        secret,
        subject,
        ttl_seconds=TOKEN_SECONDS,
        scope=None,
        audience=None,
        issuer=None,
        now=time.time(),
    )


@contextmanager
def process(
    command: Sequence[str], environment: Mapping[str, str], log: Path, core: int | None
) -> Generator["subprocess.Popen[bytes]"]:
    """Run a process on that core in the log's directory (no `.env` is there), and end it."""
    with log.open("ab") as output, on_core(core):
        started = subprocess.Popen(
            command,
            cwd=log.parent,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield started
    finally:
        started.send_signal(signal.SIGTERM)
        try:
            started.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"killed: no end {STOP_SECONDS:g} seconds after SIGTERM", file=sys.stderr)
        finally:
            started.kill()  # nothing, when it has ended; a second Ctrl-C must not leave it behind
            started.wait()


def _ready(started: "subprocess.Popen[bytes]", address: str) -> Server:
    """Wait until /readyz says yes and the server has nothing to do any more."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        if started.poll() is not None:
            raise ServerFailed("the server ended by itself")
        try:
            probe = f"http://{address}/readyz"
            with urllib.request.urlopen(probe, timeout=PROBE_SECONDS):
                break
        except OSError:
            if time.monotonic() > deadline:
                raise ServerFailed(f"not ready after {START_SECONDS:g} seconds") from None
            time.sleep(0.02)
    server = Server(started, f"ws://{address}")
    server.settle()
    return server
