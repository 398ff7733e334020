"""Group commit: whatever arrived while one commit was on its way is the next one. No timers.

    sources have entries -> cut them off -> encode -> append (one in flight) -> tell the sources

An append that fails is tried again with the same seq and bytes until it succeeds or the log
turns out to be sealed; meanwhile `available` is False and new work is refused elsewhere.
"""

import asyncio
import time
from itertools import islice
from typing import Final

import structlog

from server.histogram import Histogram
from server.journal.entries import Entry, Source, encode_commit
from server.journal.log import Log, Unavailable

COMMIT_BYTES_MAX: Final = 12 * 1024 * 1024
"""A batch larger than this becomes several commits, unless it is a single entry."""
RIDERS_MAX: Final = 2000
"""So many sources that ask for no commit by themselves do force one together."""
BULK_SOURCES: Final = 4
"""So many sources with much to say get into one commit: others wait for it."""
RETRY_SECONDS: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Waits between the tries of one append; the last one repeats."""
STALLED_SECONDS: Final = 3.0
"""An append without an answer for so long counts as an outage: a disk or a network that hangs."""
GATHER_TURNS: Final = 2
"""When several sources had something, the next commit waits for so many turns of the event loop:
what the last one set going, and what has arrived by now, gets into it."""

COMMIT_SECONDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0,
)  # fmt: skip
"""Bounds of the time a commit takes: from a fast disk to an outage."""
COMMIT_ENTRIES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
"""Bounds of the number of entries in a commit."""

_log = structlog.get_logger(__name__)


class Committer:
    """The one writer of `owner`'s log. `seq` is the last commit made, `next_seq` the one to come;
    of everything up to `told_seq` the sources know that it is durable.

    The entries of a source stay in their order, those of different sources have none. Sources in
    `bulk` take turns, so that a commit stays small. Nothing here blocks but `durable`.

    `failures` counts appends that failed or stalled. `commit_seconds` has how long each commit
    took until it was durable, repeats and waits included, and `commit_entries` its entries.
    """

    def __init__(self, log: Log, owner: str) -> None:
        self.owner = owner
        self.seq = 0
        self.told_seq = 0
        self.available = True
        self.bytes_written = 0
        self.commits = 0
        self.failures = 0
        self.commit_seconds = Histogram(COMMIT_SECONDS)
        self.commit_entries = Histogram(COMMIT_ENTRIES)
        self._log = log
        self._next_seq = 1
        self._sources: dict[Source, None] = {}  # a set that keeps the order
        self._entries: list[Entry] = []
        # In the order they came; how many came in all, and how many of them had their turn.
        self._bulk: dict[Source, None] = {}
        self._bulk_came = 0
        self._bulk_taken = 0
        # Each with the number of `bulk` sources it waits for.
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        self._asked_at: float | None = None  # the loop's time, while an append is under way

    @property
    def append_age_seconds(self) -> float:
        """How long the append under way has had no answer; 0 when there is none."""
        if self._asked_at is None:
            return 0.0
        return max(0.0, asyncio.get_running_loop().time() - self._asked_at)

    @property
    def next_seq(self) -> int:
        """The seq of the commit that entries added now will be in (or a later one)."""
        return self._next_seq

    def commit(self, source: Source) -> None:
        """Make what `source` has durable soon; it is told when that is done."""
        self._sources[source] = None
        self._wake.set()

    def ride(self, source: Source) -> None:
        """Make what `source` has durable with the next commit, without asking for one."""
        self._sources[source] = None
        if len(self._sources) > RIDERS_MAX:
            self._wake.set()

    def bulk(self, source: Source) -> None:
        """Make what `source` has durable when its turn comes; it has much."""
        if source not in self._bulk:
            self._bulk[source] = None
            self._bulk_came += 1
        self._wake.set()

    def forget(self, source: Source) -> None:
        """Ask `source` for nothing: it has taken back what it had since its last cut."""
        self._sources.pop(source, None)

    def add(self, entry: Entry) -> None:
        """Put `entry`, which is of no source, into the next commit behind what sources have."""
        self._entries.append(entry)

    async def durable(self) -> None:
        """Wait until everything put into the log so far is on stable storage."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((self._bulk_came, future))
        self._wake.set()
        await future

    def sweep(self) -> None:
        """Take note of an append that gets no answer; called every second.

        What rides along is committed by now when nothing else was: operators read the journal,
        and would find a request waiting that has been running for hours.
        """
        if self._asked_at is None:
            if self._sources:
                self._wake.set()
            return
        if not self.available:
            return
        seconds = asyncio.get_running_loop().time() - self._asked_at
        if seconds >= STALLED_SECONDS:
            self.failures += 1
            self._lose(f"no answer for {seconds:.1f} s", self._next_seq - 1)

    async def begin(self) -> None:
        """Make the log known to others, by a first commit with nothing in it.

        To be called before `run`, and before the logs of others are listed: of two owners that
        begin at the same time at least one then sees the other, even if it has nothing to say
        yet. Raises Sealed, and Unavailable: who cannot begin need not wait.
        """
        await self._log.append(self.owner, self._next_seq, encode_commit([]))
        self.seq = self.told_seq = self._next_seq
        self._next_seq += 1

    async def run(self) -> None:
        """Commit for ever. Raises Sealed when the log was taken over by another owner."""
        turns = 0
        while True:
            await self._wake.wait()
            for _ in range(turns):
                await asyncio.sleep(0)
            self._wake.clear()
            sources, self._sources = self._sources, {}
            self._take_bulk(sources)
            waiters = self._take_waiters()
            entries: list[Entry] = []
            for source in sources:
                entries += source.cut()
            entries += self._entries
            self._entries = []
            if entries:
                await self._append_all(entries)
            self.told_seq = self.seq
            self._tell(sources, waiters)
            turns = GATHER_TURNS if len(sources) > 1 else 0

    def _take_bulk(self, sources: dict[Source, None]) -> None:
        """Add those to `sources` whose turn it is: all, when an entry is to come behind them."""
        bulk = self._bulk
        count = len(bulk) if self._entries else min(BULK_SOURCES, len(bulk))
        for source in list(islice(bulk, count)):
            del bulk[source]
            sources[source] = None
        self._bulk_taken += count
        if bulk:
            self._wake.set()

    def _take_waiters(self) -> "list[asyncio.Future[None]]":
        """Return who waits for nothing that is not in this commit, or before."""
        ready = [future for came, future in self._waiters if came <= self._bulk_taken]
        del self._waiters[: len(ready)]
        return ready

    @staticmethod
    def _tell(sources: dict[Source, None], waiters: "list[asyncio.Future[None]]") -> None:
        for source in sources:
            try:
                source.committed()
            except Exception:
                # One session's failure must not keep the others from their commits.
                _log.exception("committed_failed")
        for future in waiters:
            if not future.done():
                future.set_result(None)

    async def _append_all(self, entries: list[Entry]) -> None:
        data = encode_commit(entries)
        if len(data) > COMMIT_BYTES_MAX and len(entries) > 1:
            middle = len(entries) // 2
            await self._append_all(entries[:middle])
            await self._append_all(entries[middle:])
            return
        seq = self._next_seq
        self._next_seq = seq + 1
        began = time.perf_counter()
        await self._append(seq, data)
        self.commit_seconds.observe(time.perf_counter() - began)
        self.commit_entries.observe(len(entries))
        self.seq = seq
        self.commits += 1
        self.bytes_written += len(data)

    async def _append(self, seq: int, data: bytes) -> None:
        tries = 0
        self._asked_at = asyncio.get_running_loop().time()
        while True:
            try:
                await self._log.append(self.owner, seq, data)
            except Unavailable as error:
                self.failures += 1
                if self.available:
                    self._lose(str(error), seq)
                await asyncio.sleep(RETRY_SECONDS[min(tries, len(RETRY_SECONDS) - 1)])
                tries += 1
            else:
                if not self.available:
                    _log.info("journal_available_again", seq=seq)
                self.available = True
                self._asked_at = None
                return

    def _lose(self, reason: str, seq: int) -> None:
        self.available = False
        _log.error("journal_unavailable", error=reason, seq=seq)
