"""The real server as a subprocess, to be killed and started again on the same port and journal."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from scripts.ports import free_port
from server.tokens import issue_token
from tests.killable import Killable

ROOT = Path(__file__).parents[1]
SECRET = "a-secret-of-the-tests-" + "x" * 32
START_SECONDS = 30


def token(subject: str = "alice", **claims: Any) -> str:
    """Return a token this server takes."""
    options: dict[str, Any] = {
        "ttl_seconds": 3600,
        "scope": None,
        "audience": None,
        "issuer": None,
        "now": time.time(),
    } | claims
    return issue_token(SECRET, subject, **options)


class ServerProcess(Killable):
    """One server; `start` waits until it is ready, `kill` is SIGKILL."""

    def __init__(self, directory: Path, journal: str | None = None, **settings: Any) -> None:
        self.port = free_port()
        self.directory = directory
        self.log = directory / "server.log"
        self.journal = journal or f"sqlite:///{directory / 'journal.db'}"
        self.settings = settings

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin(self) -> str:
        """Where the admin port of the process that was started last is."""
        lines = self.log.read_text().splitlines()
        serving = [line for line in lines if '"event": "serving"' in line]
        return str(json.loads(serving[-1])["admin"])

    def environment(self) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("QUEUESYSTEM_")}
        ours = {
            "port": self.port,
            "admin_port": 0,
            "journal": self.journal,
            "jwt_secret": SECRET,
            "log_format": "json",
        } | self.settings
        clean["PYTHONPATH"] = str(ROOT)  # for the handlers of the tests
        return clean | {f"QUEUESYSTEM_{name.upper()}": str(value) for name, value in ours.items()}

    def spawn(self) -> None:
        """Start the process without waiting for it."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "server", "serve"],
                cwd=self.directory,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait_ready(self) -> None:
        """Wait until /readyz says yes."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended:\n{self.log.read_text()}")
            try:
                with urllib.request.urlopen(f"{self.http}/readyz", timeout=5):  # noqa: S310
                    return
            except OSError:
                if time.monotonic() > deadline:
                    raise AssertionError(f"not ready:\n{self.log.read_text()}") from None
                time.sleep(0.02)

    def start(self) -> None:
        self.spawn()
        self.wait_ready()

    def terminate(self, timeout: float = 60) -> int:
        """SIGTERM; return the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)


def unique(prefix: str = "id") -> str:
    """Return an id nobody used."""
    return f"{prefix}-{secrets.token_hex(6)}"
