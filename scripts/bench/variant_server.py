"""queueSystem with parts of it switched off. FOR THE BENCHMARK ONLY: IT BREAKS GUARANTEES.

    python variant_server.py [PART ...]     the settings come from the environment

    journal        a commit is answered at once and stays in memory: a crash loses what was accepted
    results        results are not in the log: a crash loses those that nobody has acknowledged
    done           the end of a request is said at once and its commit rides along: a crash runs
                   again what a client has seen end
    request_log    the log is not projected: the request log stays empty
    metrics        requests are not counted or timed: their metrics stay 0 (breaks no guarantee);
                   plain additions to attributes, a few for each message, cannot be left out

This is the real server (server/app.py); only the names under which it finds these parts stand for
something else. So it needs no options that nobody else may use, and what is left is unchanged.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from typing import Any, Final

from server import app, sessions
from server.cli import main
from server.counts import Counts
from server.histogram import Histogram
from server.journal.entries import Entry, Finished
from server.journal.log import Commit, LogInfo
from server.journal.opening import open_store
from server.journal.state import RequestState
from server.journal.store import Store
from server.methods import Method
from server.session import Session
from server.worker import Worker

JOURNAL: Final = "journal"
RESULTS: Final = "results"
DONE: Final = "done"
REQUEST_LOG: Final = "request_log"
METRICS: Final = "metrics"
PARTS: Final = (JOURNAL, RESULTS, DONE, REQUEST_LOG, METRICS)
_NO_ITEMS: Final[list[bytes]] = []


class MemoryLog:
    """See log.Log: the commits of one owner, kept until they are trimmed, for the projection.

    There are no other owners, so nothing is ever sealed or forgotten.
    """

    def __init__(self) -> None:
        self._commits: dict[int, bytes] = {}

    async def append(self, owner: str, seq: int, data: bytes) -> None:
        self._commits[seq] = data

    async def read(self, owner: str, after: int) -> AsyncGenerator[Commit, None]:
        while (data := self._commits.get(after + 1)) is not None:
            after += 1
            yield Commit(after, data)

    async def owners(self) -> list[LogInfo]:
        return []

    async def seal(self, owner: str, by: str) -> str:
        raise NotImplementedError

    async def trim(self, owner: str, upto: int, spare: Collection[int] = ()) -> None:
        for seq in [seq for seq in self._commits if seq <= upto and seq not in spare]:
            del self._commits[seq]

    async def forget(self, owner: str) -> None:
        raise NotImplementedError


class StoreWithoutLog:
    """Users and history of `store`, and a log in memory."""

    def __init__(self, store: Store) -> None:
        self.log = self.log_reader = MemoryLog()
        self.users = store.users
        self.commands = store.commands
        self.history = store.history
        self.close = store.close


async def open_without_log(url: str, **options: Any) -> StoreWithoutLog:
    """Open the store at `url`, but for its log."""
    return StoreWithoutLog(await open_store(url, **options))


class NoProjection:
    """In the place of a Projector."""

    def __init__(self, store: Store, owner: str, told_seq: Callable[[], int]) -> None:
        pass

    def note(self, session: Session, ended: Sequence[RequestState]) -> None:
        """Take no note."""

    async def wait(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    async def run(self) -> int:
        """Say that the history has everything, so that the log can be trimmed."""
        return sys.maxsize


class ResultsNotStored(Session):
    """Sends results, keeps them for a client that comes back, and leaves them out of the log.

    Pieces of long streams are logged as ever.
    """

    __slots__ = ()

    def cut(self) -> Sequence[Entry]:
        entries = super().cut()
        for entry in entries:
            if type(entry) is Finished:
                for end in entry.ends:
                    end.items = _NO_ITEMS
        return entries


class EndsNotAwaited(Session):
    """Says at once that requests have ended, and asks for no commit of that."""

    __slots__ = ()

    def answer(self, *arguments: Any) -> None:
        self._end_at_once(super().answer, *arguments)

    def finish(self, *arguments: Any) -> None:
        self._end_at_once(super().finish, *arguments)

    def _end_at_once(self, end: Callable[..., None], *arguments: Any) -> None:
        forced, self._forced = self._forced, True  # nobody is asked for a commit meanwhile
        end(*arguments)
        self._forced = forced
        if not forced:
            self._rules.journal.ride(self)
        ended, self._ended = self._ended, []
        if ended:
            self._rules.note(self, ended)
            self._announce(ended)


def count_nothing(counts: Counts, *_: object) -> None:
    """In the place of the methods of Counts."""


def observe_nothing(histogram: Histogram, value: float, times: int = 1) -> None:
    """In the place of Histogram.observe."""


class NothingTimed(Worker):
    """Times no handler that ends at once."""

    __slots__ = ()

    def _lap(self, method: Method | None, **_: int) -> float:
        self._lap_method = method  # so that it is not asked for each request
        return 0.0


def switch_off(parts: Collection[str]) -> None:
    """Make servers that this process starts do without `parts`."""
    if JOURNAL in parts:
        app.open_store = open_without_log
    if REQUEST_LOG in parts:
        app.Projector = NoProjection
    if METRICS in parts:
        Counts.accept = Counts.end_at_once = Counts.end = count_nothing
        Histogram.observe = observe_nothing
        sessions.Worker = NothingTimed
    variants = {RESULTS: ResultsNotStored, DONE: EndsNotAwaited}
    if bases := tuple(variants[part] for part in variants if part in parts):
        sessions.Session = type("VariantSession", bases, {"__slots__": ()})


if __name__ == "__main__":
    if unknown := set(sys.argv[1:]) - set(PARTS):
        sys.exit(f"{', '.join(sorted(unknown))}: not one of {', '.join(PARTS)}")
    switch_off(sys.argv[1:])
    sys.exit(main(["serve"]))
