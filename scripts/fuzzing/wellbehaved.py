"""A client that does all as it should, and checks that it gets all it should."""

import asyncio
from random import Random
from typing import Any, Final

from protocol.client import Session, connect

REQUEST_SECONDS: Final = 60.0
"""A request that takes longer is held up by others (they take milliseconds)."""
AT_A_TIME: Final = 6


class Wrong(Exception):
    """A result that is not what it must be."""


class WellBehaved:
    """One session; `checked` counts requests whose results were all right."""

    def __init__(self, url: str, token: str, seed: str) -> None:
        self.checked = 0
        self._url = url
        self._token = token
        self._random = Random(seed)
        self._leaving = asyncio.Event()

    def leave(self) -> None:
        """Finish what was begun, then end."""
        self._leaving.set()

    async def run(self, working: asyncio.Event) -> None:
        """Work until `leave`. Raises Wrong, TimeoutError and the client's errors."""
        async with connect(self._url, token=self._token) as session:
            while not self._leaving.is_set():
                async with asyncio.timeout(REQUEST_SECONDS), asyncio.TaskGroup() as group:
                    for _ in range(AT_A_TIME):
                        group.create_task(self._request(session))
                working.set()
            if session.reconnects:
                raise Wrong(f"the connection was lost {session.reconnects} times")

    async def _request(self, session: Session) -> None:
        wanted: list[Any]
        match self._random.randrange(4):
            case 0:
                upto = self._random.randrange(50)
                wanted = [[number, "x" * 20] for number in range(upto)]
                handle = session.request("count", upto=upto, size=20)
            case 1:
                wanted = [None]
                handle = session.request("pause", seconds=0.001)
            case 2:
                text = str(self._random.random())
                wanted = [text[::-1]]
                handle = session.request("thread", text=text)
            case _:
                text = "\u2028" * self._random.randrange(100)
                wanted = [text]
                handle = session.request("echo", text=text)
        found = await handle.results()
        if found != wanted:
            raise Wrong(f"request {handle.id} gave {found!r:.300}, not {wanted!r:.300}")
        self.checked += 1
