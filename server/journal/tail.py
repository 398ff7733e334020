"""The request log as it is at this moment: the history, and what logs say that it does not yet.

    each log: commits after the watermark -> the very projection, but into memory
    -> the history, where sessions of the tail are passed over while they are unfinished

The history lags behind the logs, and a server that was killed leaves it so. What is read here
needs no lock and writes nothing; of the history no more is kept than is asked for, and of the
logs' tails what has not finished.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final

from server.journal.buckets import Newest
from server.journal.log import Commit, LogReader, Unavailable
from server.journal.projection import project
from server.journal.store import (
    Bucket,
    Failed,
    History,
    HistoryRow,
    Packed,
    Query,
    Store,
    Unfinished,
)

TRIES: Final = 10
"""When a log is trimmed or forgotten while it is read, all is read again; so often at most."""


async def find_now(store: Store, query: Query) -> list[HistoryRow]:
    """Return the requests that `query` asks for, newest first.

    Raises the errors of log.py, Unavailable also when the logs change faster than they are read.
    """
    for _ in range(TRIES):
        tail = _Tail(store, query)
        try:
            await tail.read()
        except _Moved:
            continue
        return await tail.rows()
    raise Unavailable("the journal changes faster than it can be read: try again")


class _Moved(Exception):
    """What was to be read is in the history by now, and no longer in the log."""


class _Tail:
    """Reads the tails of all logs. To the projection it is a store of which nothing is kept."""

    def __init__(self, store: Store, query: Query) -> None:
        self.log_reader = _Gapless(store.log_reader)
        self.history = _Overlay(store.history, query)
        self._store = store
        self._query = query

    async def read(self) -> None:
        """Follow every log to its end. Raises _Moved."""
        logs = {info.owner for info in await self._store.log_reader.owners()}
        for owner in sorted(logs):
            await project(self, owner)
        if not logs <= {info.owner for info in await self._store.log_reader.owners()}:
            raise _Moved  # forgotten, perhaps before it was read to its end

    async def rows(self) -> list[HistoryRow]:
        """Return what was found there and in the history, which is read after the logs: what
        leaves a log is in the history before.
        """
        overlay = self.history
        newest = overlay.newest
        for piece in overlay.pieces.values():
            newest.take(piece)
        history = self._store.history
        await newest.read_unfinished(
            history.unfinished_pieces(self._query), passing_over=overlay.pieces
        )
        await newest.read_finished(history.finished_pieces(self._query))
        return newest.rows()


class _Gapless:
    """The logs, of which no commit is passed over."""

    def __init__(self, log: LogReader) -> None:
        self.owners = log.owners
        self._log = log

    async def read(self, owner: str, after: int) -> AsyncGenerator[Commit]:
        """See LogReader. Raises _Moved."""
        async with aclosing(self._log.read(owner, after)) as commits:
            async for commit in commits:
                after += 1
                if commit.seq != after:
                    raise _Moved
                yield commit


class _Overlay:
    """What a projection would write: `pieces` is what has not finished, by session."""

    def __init__(self, history: History, query: Query) -> None:
        self.newest = Newest(query)
        self.pieces: dict[str, Packed] = {}
        self._history = history

    async def resume(self, owner: str) -> int:
        """See History."""
        return await self._history.projected(owner)

    async def unfinished(self, sessions: Sequence[str]) -> Sequence[Packed]:
        """See History."""
        known = [self.pieces[name] for name in sessions if name in self.pieces]
        others = [name for name in sessions if name not in self.pieces]
        # The history may be ahead of the watermark that was read: what finishes twice then is
        # complete in the buckets, which are read last.
        return [*known, *await self._history.unfinished(others)]

    async def project(
        self,
        owner: str,
        upto: int,
        finished: Sequence[Bucket],
        unfinished: Sequence[Unfinished],
        failed: Sequence[Failed] = (),
    ) -> None:
        """See History."""
        for bucket in finished:
            self.newest.take(bucket)
        for piece in unfinished:
            self.pieces[piece.session] = piece
