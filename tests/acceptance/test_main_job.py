"""The main job on real input: count the words of a real text while the server is killed.

Four sessions send every paragraph as a `wordcount` request; meanwhile the server is killed with
SIGKILL five times and started again. In the end every request is done exactly once from its
client's view, in order, and the counts are those of the file.
"""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest

from protocol.client import RequestHandle, connect
from tests.contract.backends import REAL_MONGODB, drop_database, fresh_database
from tests.mongo import MongoDaemon
from tests.server_process import ROOT, ServerProcess, token

SESSIONS = 4
WINDOW = 16
KILLS = 5
TEXTS = [Path("/usr/share/common-licenses/GPL-3"), ROOT / "LICENSE"]
REQUESTS_MIN = 160
"""Per session: a short text is sent over and over, so that there is work at every kill."""
DELAY_SECONDS = 0.004


def paragraphs() -> list[str]:
    text = next(path for path in TEXTS if path.exists()).read_text(encoding="utf-8")
    found = [part for part in text.split("\n\n") if part.strip()]
    return list(islice(cycle(found), max(REQUESTS_MIN, len(found))))


@pytest.fixture(params=["sqlite", "mongodb"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerProcess]:
    journal = None
    daemon: MongoDaemon | None = None
    if request.param == "mongodb":
        if REAL_MONGODB is None:
            daemon = MongoDaemon(tmp_path)
            daemon.start()
        journal = fresh_database(REAL_MONGODB or (daemon.url("") if daemon else ""))
    server = ServerProcess(tmp_path, journal, window=WINDOW)
    server.start()
    yield server
    server.close()
    if daemon is not None:
        daemon.close()
    elif journal is not None:
        drop_database(journal)


class Progress:
    """How many requests have ended, for the killer to wait for."""

    def __init__(self) -> None:
        self.ended = 0
        self._changed = asyncio.Event()

    def one_more(self) -> None:
        self.ended += 1
        self._changed.set()

    async def reach(self, count: int) -> None:
        while self.ended < count:
            self._changed.clear()
            await self._changed.wait()


async def in_window(session: Any, texts: list[str]) -> AsyncIterator[tuple[int, RequestHandle]]:
    """Submit one request for each text, WINDOW at a time; give them in order."""
    waiting: deque[tuple[int, RequestHandle]] = deque()
    for position, text in enumerate(texts):
        waiting.append((position, session.request("wordcount", text=text, delay=DELAY_SECONDS)))
        if len(waiting) == WINDOW:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()


async def count_words(url: str, subject: str, texts: list[str], progress: Progress) -> list[int]:
    """Return the total of each text, as one session heard it, in order."""
    totals: list[int] = []
    async with connect(url, token=lambda: token(subject)) as session:
        async for position, handle in in_window(session, texts):
            words = [item["words"] async for item in handle]
            assert handle.n == position + 1, "the server took them in another order"
            # Every partial count once, in order, then the total: no gap, no repeat.
            assert words == [*range(10, words[-1] + 1, 10), words[-1]]
            totals.append(words[-1])
            progress.one_more()
    return totals


async def test_nothing_is_lost_and_nothing_is_twice_though_the_server_is_killed(
    server: ServerProcess,
) -> None:
    texts = paragraphs()
    progress = Progress()
    dice = random.Random(20261125)  # noqa: S311 - when to kill is no secret
    everything = SESSIONS * len(texts)
    moments = sorted(dice.sample(range(everything // 20, everything * 9 // 10), KILLS))

    async def killer() -> None:
        for moment in moments:
            await progress.reach(moment)
            await server.restart()

    killing = asyncio.create_task(killer())
    totals = await asyncio.gather(
        *(count_words(server.url, f"user{n}", texts, progress) for n in range(SESSIONS))
    )
    await killing
    assert totals == [[len(text.split()) for text in texts]] * SESSIONS
    assert server.log.read_text().count('"recovered"') == KILLS
