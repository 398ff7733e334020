"""One user of the client: it asks for this and that without a break, and times every answer."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from protocol.client import RequestHandle, Session, connect
from scripts.crashing.workload import Ask, Asking, Mix

from .recording import who

MIX: Final = Mix({"quick": 40, "pause": 30, "stream": 20, "thread": 10})
"""Short requests and streams, none of which takes long: so a drain never ends one."""
UNFINISHED_MAX: Final = 6
PAUSE_SECONDS_MAX: Final = 0.6
"""Between two requests of a user: up to this."""


class WrongAnswer(Exception):
    """The client handed out what the handler did not give."""


@dataclass
class Seen:
    """What all users saw: when each request was asked for and had ended (monotonic seconds)."""

    spans: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    asked: int = 0


class User:
    """The user `name`. `finishing` lets it ask for nothing more."""

    def __init__(self, name: str, url: str, token: str, seen: Seen, dice: Random) -> None:
        self.finishing = asyncio.Event()
        self._session: Session | None = None
        self._name = name
        self._url = url
        self._token = token
        self._seen = seen
        self._dice = dice
        self._asking = Asking(name, MIX, dice)
        self._room = asyncio.Semaphore(UNFINISHED_MAX)

    @property
    def online(self) -> bool:
        """Tell whether it has a connection."""
        return self._session is not None and self._session.state == "online"

    async def run(self) -> None:
        """Go on until told to finish and everything has ended. Raises ClientError, WrongAnswer."""
        who.set(self._name)
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(connect(self._url, token=self._token))
            self._session = session
            requests = await stack.enter_async_context(asyncio.TaskGroup())
            while not self.finishing.is_set():
                await self._room.acquire()
                requests.create_task(self._ask(session))
                await self._pause()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._dice.uniform(0, PAUSE_SECONDS_MAX)):
                await self.finishing.wait()
        except TimeoutError:
            pass

    async def _ask(self, session: Session) -> None:
        ask = self._asking.next()
        began = time.monotonic()
        self._seen.asked += 1
        frame = ask.frame
        handle = session.submit(frame["method"], frame["params"], id=ask.id)
        try:
            _check(ask, await _results(handle))
        finally:
            self._room.release()
        self._seen.spans.append((began, time.monotonic()))


async def _results(handle: RequestHandle) -> list[Any]:
    return [item async for item in handle]


def _check(ask: Ask, items: list[Any]) -> None:
    """Check that `items` are what the handler gave in its only attempt."""
    count = ask.frame["params"].get("count", 1)
    got = [(item["id"], item["attempt"], item["index"]) for item in items]
    if got != [(ask.id, 1, index) for index in range(count)]:
        raise WrongAnswer(f"{ask.id}: {got}, not {count} results of one attempt")
