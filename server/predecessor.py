"""Replacing a running server: no connection is refused, and the journal has one owner at a time.

    is it the server? -> listen beside it -> new connections come here, and wait
    -> SIGTERM -> it drains and ends -> [this one opens the journal, and accepts]

Only on Linux.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from socket import socket as Socket  # noqa: N812 - a class
from typing import Final

import structlog

from server import sockets

STRAGGLERS_SECONDS: Final = 0.5
"""So long the old server goes on: for those who had begun to connect to it before."""
SPARE_SECONDS: Final = 30.0
"""So much longer than its drain the old server may take to end."""

_LISTENING: Final = "0A"
"""How /proc/net/tcp calls a socket that listens."""

_log = structlog.get_logger(__name__)


async def replace(pid: int, host: str, port: int, drain_timeout_seconds: float) -> list[Socket]:
    """End the server `pid`, which listens on `port`; return sockets that listen in its place.

    Raises OSError when `pid` is not that, and TimeoutError (one of those) when it does not end.
    """
    if sys.platform != "linux":
        raise OSError("a running server can only be replaced on Linux")
    try:
        # From here on the number is this process's: should it end, no other is told to.
        process = os.pidfd_open(pid)
    except OSError as error:
        raise OSError(error.errno, f"cannot replace process {pid}: {error.strerror}") from None
    try:
        _check_that_it_listens(pid, port)
        ours = sockets.listen(host, port, beside=True)
        try:
            sockets.steer(ours)
            await asyncio.sleep(STRAGGLERS_SECONDS)
            _log.info("replacing", pid=pid)
            await _end(process, pid, drain_timeout_seconds + SPARE_SECONDS)
        except BaseException:
            sockets.close(ours)
            raise
    finally:
        os.close(process)
    return ours


async def _end(process: int, pid: int, timeout_seconds: float) -> None:
    """Send SIGTERM, and wait until the process is gone."""
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(process, gone.set)
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        async with asyncio.timeout(timeout_seconds):
            await gone.wait()
    except ProcessLookupError:
        pass  # it has just ended by itself
    except TimeoutError:
        message = f"process {pid} has not ended {timeout_seconds:g} s after SIGTERM"
        raise TimeoutError(message) from None
    finally:
        loop.remove_reader(process)


def _check_that_it_listens(pid: int, port: int) -> None:
    """Raise OSError unless process `pid` listens on `port`: SIGTERM is for nobody else."""
    process = Path("/proc", str(pid))
    try:
        files = set(_links(process / "fd"))
        lines = [
            line.split()
            for table in ("tcp", "tcp6")
            for line in (process / "net" / table).read_text(encoding="ascii").splitlines()
        ]
    except OSError as error:
        raise OSError(error.errno, f"cannot look at process {pid}: {error.strerror}") from None
    for line in lines:
        # sl local_address rem_address st ... inode ..., in proc(5)
        is_it = line[1].endswith(f":{port:04X}") and line[3] == _LISTENING
        if is_it and f"socket:[{line[9]}]" in files:
            return
    raise OSError(f"process {pid} does not listen on port {port}: it is not the server to replace")


def _links(directory: Path) -> Iterator[str]:
    """Yield where the links in `directory` lead; some may go meanwhile, as connections do."""
    for link in directory.iterdir():
        with suppress(FileNotFoundError):
            yield str(link.readlink())
