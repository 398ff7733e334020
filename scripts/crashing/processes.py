"""The server and the database as processes, to be ended however it suits.

    spawn -> listening -> SIGKILL, SIGTERM, SIGSTOP ... -> gone

Only processes started here are ended, each by its own handle.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from scripts.ports import free_port, listens

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 30.0
"""How long a process may take to end by itself."""
ANSWER_SECONDS: Final = 1.0
POLL_SECONDS: Final = 0.005
MONGODB_DAEMON: Final = Path(sys.executable).with_name("secantusd-py")


class Stuck(Exception):
    """Something that must happen within its time did not; the text says what."""


class Process:
    """One process that listens on `port`; its output goes to the end of `log`. What `serves` HTTP
    listens before it accepts: it counts as listening when it answers.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        port: int,
        *,
        serves: bool = False,
    ) -> None:
        self.name = name
        self._serves = serves
        self.port = port
        self.log = log
        self._command = command
        self._environment = environment
        self._started: asyncio.subprocess.Process | None = None

    async def spawn(self) -> None:
        """Start it, without waiting for it."""
        with self.log.open("ab") as output:
            self._started = await asyncio.create_subprocess_exec(
                *self._command,
                cwd=self.log.parent,
                env=dict(self._environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    @property
    def _process(self) -> asyncio.subprocess.Process:
        if self._started is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._started

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Tell whether it was started and is gone."""
        return self._started is not None and self._started.returncode is not None

    async def listening(self) -> bool:
        """Wait until it listens; False when it ended before. Raises Stuck."""
        try:
            async with asyncio.timeout(START_SECONDS):
                while not (await _answers(self.port) if self._serves else listens(self.port)):
                    if self.ended:
                        return False
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise Stuck(f"does not listen after {START_SECONDS:g} s (see {self.log})") from None
        return True

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it is gone."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def gone(self, seconds: float = STOP_SECONDS) -> int:
        """Wait until it is gone and return its exit code. Raises Stuck."""
        try:
            async with asyncio.timeout(seconds):
                return await self._process.wait()
        except TimeoutError:
            raise Stuck(f"process {self.pid} has not ended after {seconds:g} s") from None

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._started is not None:
            self.signal(signal.SIGKILL)
            await self.gone()


async def _answers(port: int) -> bool:
    """Tell whether a server of ours accepts connections there."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = await reader.read(1)
            writer.close()
    except (OSError, TimeoutError):
        return False
    return bool(answer)


def mongodb(directory: Path) -> Process:
    """Return a MongoDB-compatible daemon with its data in `directory`; it syncs every commit."""
    port = free_port()
    command = [
        str(MONGODB_DAEMON),
        "--host=127.0.0.1",
        f"--port={port}",
        f"--storage-path={directory / 'mongodb'}",
        "--sync-on-commit",
        "--log-level=WARNING",
    ]
    return Process("mongodb", command, os.environ, directory / "mongodb.log", port)
