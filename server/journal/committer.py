"""Group commit: whatever arrived while one commit was on its way is the next one. No timers.

    entries pile up -> cut a batch -> encode once -> append (one in flight) -> tell who waited

An append that fails is tried again with the same seq and bytes until it succeeds or the log
turns out to be sealed; meanwhile `available` is False and new work is refused elsewhere.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import structlog

from server.journal.entries import Entry, encode_commit
from server.journal.log import Log, Unavailable

COMMIT_BYTES_MAX: Final = 12 * 1024 * 1024
"""A batch larger than this becomes several commits, unless it is a single entry."""
RIDERS_MAX: Final = 2000
"""So many entries that force no commit by themselves do force one together."""
RETRY_SECONDS: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Waits between the tries of one append; the last one repeats."""

_log = structlog.get_logger(__name__)

Notify = Callable[[Any], None]


class Committer:
    """The one writer of `owner`'s log. `seq` is the last commit made, `next_seq` the one to come.

    `commit` and `ride` take effect in call order and never block; the entries they leave behind
    are bounded by what the callers may have unfinished (window, unacknowledged results).
    """

    def __init__(self, log: Log, owner: str) -> None:
        self.owner = owner
        self.seq = 0
        self.available = True
        self.bytes_written = 0
        self.commits = 0
        self._log = log
        self._next_seq = 1
        self._entries: list[Entry] = []
        self._notify: list[tuple[Notify, Any]] = []
        self._wake = asyncio.Event()

    @property
    def next_seq(self) -> int:
        """The seq of the commit that entries added now will be in (or a later one)."""
        return self._next_seq

    def commit(self, entry: Entry, notify: Notify, argument: Any) -> None:
        """Put `entry` into the log; `notify(argument)` is called once it is durable."""
        self._entries.append(entry)
        self._notify.append((notify, argument))
        self._wake.set()

    def ride(self, entry: Entry) -> None:
        """Put `entry` into the log with the next commit, without asking for one."""
        self._entries.append(entry)
        if len(self._entries) > RIDERS_MAX:
            self._wake.set()

    async def durable(self) -> None:
        """Wait until everything put into the log so far is on stable storage."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._notify.append((_resolve, future))
        self._wake.set()
        await future

    async def run(self) -> None:
        """Commit for ever. Raises Sealed when the log was taken over by another owner."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            entries, self._entries = self._entries, []
            notify, self._notify = self._notify, []
            if entries:
                await self._append_all(entries)
            for callback, argument in notify:
                try:
                    callback(argument)
                except Exception:
                    # One session's failure must not keep the others from their commits.
                    _log.exception("commit_callback_failed")

    async def _append_all(self, entries: list[Entry]) -> None:
        data = encode_commit(entries)
        if len(data) > COMMIT_BYTES_MAX and len(entries) > 1:
            middle = len(entries) // 2
            await self._append_all(entries[:middle])
            await self._append_all(entries[middle:])
            return
        seq = self._next_seq
        self._next_seq = seq + 1
        await self._append(seq, data)
        self.seq = seq
        self.commits += 1
        self.bytes_written += len(data)

    async def _append(self, seq: int, data: bytes) -> None:
        tries = 0
        while True:
            try:
                await self._log.append(self.owner, seq, data)
            except Unavailable as error:
                if self.available:
                    _log.error("journal_unavailable", error=str(error), seq=seq)
                self.available = False
                await asyncio.sleep(RETRY_SECONDS[min(tries, len(RETRY_SECONDS) - 1)])
                tries += 1
            else:
                if not self.available:
                    _log.info("journal_available_again", seq=seq)
                self.available = True
                return


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
