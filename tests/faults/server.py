"""A server on a machine with faults, and a client that remembers what it was promised."""

import asyncio
import json
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import IO, Any

from websockets.exceptions import ConnectionClosed

from tests.raw import raw
from tests.server_process import ServerProcess

HANDLERS = "tests.faults.handlers:handlers"
POLL_SECONDS = 0.02
BACKOFF_SECONDS = 0.01
REQUESTS_MAX = 900
"""So many a session may have without acknowledging them."""


class FaultyServer(ServerProcess):
    """A server with `variables` in its environment, started behind a command of the shell."""

    def __init__(
        self,
        directory: Path,
        journal: str | None = None,
        variables: dict[str, str] | None = None,
        behind: str = "",
        **settings: Any,
    ) -> None:
        super().__init__(directory, journal, **({"handlers": HANDLERS} | settings))
        self.variables = variables or {}
        self._behind = behind

    def spawn(self) -> None:
        with self.log.open("ab") as log:
            self.spawn_with(log)

    def spawn_with(self, log: IO[bytes] | int) -> None:
        """Start the process; `log` takes what it writes."""
        serve = [sys.executable, "-m", "server", "serve"]
        by_shell = ["/bin/sh", "-c", f'{self._behind}; exec "$@"', "sh", *serve]
        self.process = subprocess.Popen(
            by_shell if self._behind else serve,
            cwd=self.directory,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )

    def environment(self) -> dict[str, str]:
        return super().environment() | self.variables

    def readiness(self) -> tuple[int, list[str]]:
        """Return the status of /readyz, and its reasons."""
        try:
            with urllib.request.urlopen(f"{self.http}/readyz", timeout=5) as answer:  # noqa: S310
                return answer.status, []
        except urllib.error.HTTPError as refused:
            return refused.code, json.load(refused)["reasons"]

    async def until_readiness(self, *reasons: str) -> None:
        """Wait until /readyz gives just these reasons; none: until it says yes."""
        while (await asyncio.to_thread(self.readiness))[1] != list(reasons):
            await asyncio.sleep(POLL_SECONDS)

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of the log with that event."""
        found: list[dict[str, Any]] = []
        for line in self.log.read_text().splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
        return [line for line in found if isinstance(line, dict) and line.get("event") == event]


class Witness:
    """A client that acknowledges nothing, so that the server owes it all it was promised.

    `accepted` and `done` are the ids the server said so of; after `check` returned, it kept that.
    """

    def __init__(self, server: ServerProcess) -> None:
        self.accepted: set[str] = set()
        self.done: set[str] = set()
        self.refused: dict[str, str] = {}
        self.session = ""
        self._server = server
        self._numbers = count()
        self._promised = asyncio.Event()

    async def ask(self, at_once: int = 8) -> None:
        """Send requests, `at_once` unfinished at a time, until the connection is lost."""
        with suppress(ConnectionClosed):
            async with raw(self._server.url) as client:
                self.session = (await client.hello())["session"]
                unfinished = 0
                while True:
                    while unfinished < at_once and len(self.accepted) < REQUESTS_MAX:
                        number = str(next(self._numbers))
                        await client.request(number, params={"text": _text(number)})
                        unfinished += 1
                    frame = await client.receive()
                    unfinished -= self._take(frame)
                    if frame["type"] == "error":
                        await asyncio.sleep(BACKOFF_SECONDS)

    def _take(self, frame: dict[str, Any]) -> bool:
        match frame["type"]:
            case "accepted":
                self.accepted.add(frame["id"])
            case "done":
                self.done.add(frame["id"])
            case "error":
                self.refused[frame["id"]] = frame["code"]
            case "result":
                assert frame["data"] == _text(frame["id"])
        self._promised.set()
        return frame["type"] in {"done", "error"}

    async def promises(self, accepted: int, done: int = 0) -> None:
        """Wait until so much was promised."""
        while len(self.accepted) < accepted or len(self.done) < done:
            self._promised.clear()
            await self._promised.wait()

    async def check(self) -> None:
        """Resume, and assert that every promise is kept: known, done, with its result."""
        async with raw(self._server.url) as client:
            welcome = await client.hello(session=self.session)
            assert welcome["resumed"], "the session was lost"
            known = {request["id"]: request for request in welcome["requests"]}
            assert self.accepted <= known.keys(), "accepted, and lost"
            ended = {name for name, request in known.items() if request["state"] == "ended"}
            assert self.done <= ended, "done, and to run again"
            results: dict[str, Any] = {}
            waiting = set(known)
            while waiting:
                frame = await client.receive()
                if frame["type"] == "result":
                    results[frame["id"]] = frame["data"]
                elif frame["type"] == "done":
                    waiting.discard(frame["id"])
            assert results == {name: _text(name) for name in known}, "a result is lost"


def _text(number: str) -> str:
    return f"the text of request {number}, " + "x" * (37 * int(number) % 1500)
