"""A program of the tests: a subprocess to be killed and started again on the same port and data."""

import asyncio
import subprocess
from abc import ABC, abstractmethod


class Killable(ABC):
    """`start` waits until the program is ready, `kill` is SIGKILL."""

    process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def start(self) -> None:
        """Start it on the same port and data as before."""

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
