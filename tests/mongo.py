"""A MongoDB-compatible daemon as a subprocess, to be killed and started again on its data."""

import asyncio
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

START_SECONDS = 30
_EXECUTABLE = Path(sys.executable).with_name("secantusd-py")


class MongoDaemon:
    """One daemon, fsync on every commit; `start` waits until it answers, `kill` is SIGKILL."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.output = directory / "daemon.log"
        self.port = _free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def url(self, database: str) -> str:
        return f"mongodb://127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it on the same port and data as before."""
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [
                    _EXECUTABLE,
                    "--host=127.0.0.1",
                    f"--port={self.port}",
                    f"--storage-path={self.directory / 'data'}",
                    "--sync-on-commit",
                    "--log-level=WARNING",
                ],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._listens():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise AssertionError(f"the daemon did not start:\n{self.output.read_text()}")
            time.sleep(0.02)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """SIGKILL, as a crash would have it."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """End it however it stands (for fixtures)."""
        if self.process is not None and self.process.poll() is None:
            self.kill()

    async def astart(self) -> None:
        """`start` without holding up the loop."""
        await asyncio.to_thread(self.start)

    async def restart(self) -> None:
        """SIGKILL and start again."""
        await asyncio.to_thread(self.kill)
        await self.astart()


def _free_port() -> int:
    # Below the range from which systems take the ports of outgoing connections: nothing else
    # may get this one while the daemon is down, not even the socket that tries to reach it.
    while True:
        with socket.socket() as probe:
            port = random.randrange(15_000, 30_000)  # noqa: S311 - not a secret
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
