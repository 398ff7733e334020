"""A MongoDB-compatible daemon as a subprocess, to be killed and started again on its data."""

import subprocess
import sys
import time
from pathlib import Path

from scripts.ports import free_port, listens
from tests.killable import Killable

START_SECONDS = 30
_EXECUTABLE = Path(sys.executable).with_name("secantusd-py")


class MongoDaemon(Killable):
    """One daemon, fsync on every commit; `start` waits until it answers, `kill` is SIGKILL."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.output = directory / "daemon.log"
        self.port = free_port()

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
        while not listens(self.port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise AssertionError(f"the daemon did not start:\n{self.output.read_text()}")
            time.sleep(0.02)
