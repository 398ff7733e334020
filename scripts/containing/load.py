"""scripts/loadtest.py as a process: load that goes on through crashes, and checks every reply."""

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from .report import Failed, expect, wait_until

SCRIPT: Final = Path(__file__).parents[1] / "loadtest.py"
CONNECTIONS: Final = 20
SECONDS: Final = 15
ALL_CONNECTED: Final = f"connections {CONNECTIONS}/{CONNECTIONS}"
BACK_SECONDS: Final = 15.0
END_SECONDS: Final = 60.0
"""More than it may take: connecting, SECONDS, its drain."""


class Load:
    """CONNECTIONS sessions that stream words for SECONDS; `finish` tells what they saw."""

    def __init__(self, port: int, secret: str, directory: Path) -> None:
        self._result = directory / "load.json"
        self._said: list[str] = []
        self._measuring = threading.Event()
        self._process = subprocess.Popen(
            self._command(port),
            env={"QUEUESYSTEM_JWT_SECRET": secret},
            cwd=directory,  # where no .env is
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _command(self, port: int) -> Sequence[str]:
        return [
            sys.executable,
            str(SCRIPT),
            f"--url=ws://127.0.0.1:{port}/ws",
            f"--connections={CONNECTIONS}",
            "--window=4",
            "--method=words",
            '--params={"text": "none lost and none repeated", "delay": 0.01}',
            f"--duration={SECONDS}",
            f"--json={self._result}",
        ]

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - for the type checker
        for line in self._process.stdout:
            self._said.append(line)
            if line.startswith("measuring"):
                self._measuring.set()
        self._measuring.set()  # it will never be

    def wait_until_under_way(self) -> None:
        """Wait until all sessions send requests. Raises Failed when they cannot."""
        if not self._measuring.wait(END_SECONDS) or self._process.poll() is not None:
            raise Failed(f"no load:\n{''.join(self._said)}")

    def wait_until_all_are_back(self) -> None:
        """Wait until all sessions are connected again, as its next lines will say."""
        seen = len(self._said)
        wait_until(
            lambda: any(ALL_CONNECTED in line for line in self._said[seen:]),
            BACK_SECONDS,
            "all sessions are connected again",
        )

    def running(self) -> bool:
        """Tell whether it still sends."""
        return self._process.poll() is None

    def finish(self) -> None:
        """Wait for its end, and check what the sessions saw: a crash and an orderly restart."""
        try:
            code = self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"the load does not end:\n{''.join(self._said)}") from error
        self._reader.join()
        if code != 0:
            raise Failed(f"the load test failed, exit code {code}:\n{''.join(self._said)}")
        result: dict[str, Any] = json.loads(self._result.read_text())
        requests, connections = result["requests"], result["connections"]
        done, checked = requests["done"], result["violations"]["checked"]
        expect(
            requests["sent"] == done and result["violations"]["total"] == 0,
            f"{done} requests of {CONNECTIONS} sessions done, in {checked} frames nothing lost, "
            "repeated or out of order",
            result,
        )
        closed: dict[str, int] = connections["closed"]
        expect(
            closed.get("1012") == CONNECTIONS and sum(closed.values()) == 2 * CONNECTIONS,
            "each of them lost its connection once and was sent away with 1012 once",
            closed,
        )

    def close(self) -> None:
        """End it however it stands."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._reader.join()
