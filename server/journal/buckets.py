"""The request log's rows, many in one piece of JSON text, and how the newest of them are found.

    requests of one session -> [[n, id, method, state, ...], ...] -> one row or document

A row or document per request would cost several times as much, in Python and in the database, as
all the rest of a request; with JSON text it is one call of an encoder for hundreds of requests.
FIELDS says what stands where.
"""

from collections.abc import AsyncGenerator, Container, Iterable, Sequence
from contextlib import aclosing
from heapq import nlargest
from operator import itemgetter
from typing import Final

import msgspec

from server.journal.entries import DONE
from server.journal.store import FAILED, Bucket, History, HistoryRow, Packed, Query, Unfinished

Row = tuple[
    int,
    str | None,
    str | None,
    str,
    int | None,
    int | None,
    float | None,
    float | None,
    float | None,
]
"""One request, in the order of FIELDS."""

FIELDS: Final = (
    "n",
    "id",
    "method",
    "state",
    "attempt",
    "results",
    "accepted_at",
    "started_at",
    "finished_at",
)
BUCKET_ROWS: Final = 1000
"""Most requests in a bucket: at most 2 MB, with ids and methods of 128 characters each."""

_n: Final = itemgetter(FIELDS.index("n"))
_state: Final = itemgetter(FIELDS.index("state"))
_accepted_at: Final = itemgetter(FIELDS.index("accepted_at"))
_finished_at: Final = itemgetter(FIELDS.index("finished_at"))

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(list[Row]).decode


def pack_rows(rows: Sequence[Row]) -> str:
    """Return `rows` as JSON text; empty when there are none."""
    return _encode(rows).decode() if rows else ""


def unpack_rows(packed: str) -> list[Row]:
    """Return what `pack_rows` was given."""
    return _decode(packed) if packed else []


def newest(rows: Iterable[Row]) -> float:
    """Return when the newest of `rows` was accepted; 0.0 when that is not known of any."""
    return _latest(map(_accepted_at, rows))


def pack_finished(session: str, subject: str | None, rows: Sequence[Row]) -> list[Bucket]:
    """Return the buckets of requests that finished, given in the order in which they did.

    A bucket is named by what finished first in it, and never reaches over a multiple of
    BUCKET_ROWS: so every name that a projection gives is given again, with at least a part of the
    same content, by any other that begins at the same commit, wherever that one is cut.
    """
    numbers, _, _, states, _, _, accepted_at, _, finished_at = zip(*rows, strict=True)
    if min(numbers) // BUCKET_ROWS != max(numbers) // BUCKET_ROWS:
        groups: dict[int, list[Row]] = {}
        for row in rows:
            groups.setdefault(row[0] // BUCKET_ROWS, []).append(row)
        return [pack_finished(session, subject, group)[0] for group in groups.values()]
    bucket = Bucket(
        session=session,
        subject=subject,
        accepted_at=_latest(accepted_at),
        packed=pack_rows(rows),
        first=numbers[0],
        count=len(rows),
        states=sorted(set(states)),
        finished_at=_latest(finished_at),
    )
    return [bucket]


def pack_unfinished(
    session: str, subject: str | None, rows: Sequence[Row], before: str
) -> Unfinished:
    """Return all of a session that has not finished; `before` is what it was until now."""
    return Unfinished(
        session=session,
        subject=subject,
        accepted_at=newest(rows),
        packed=pack_rows(rows),
        before=before,
    )


def _latest(times: Iterable[float | None]) -> float:
    return max(filter(None, times), default=0.0)


def unpack(piece: Packed) -> list[HistoryRow]:
    """Return the requests in `piece`."""
    return [
        HistoryRow(
            session=piece.session,
            subject=piece.subject,
            n=n,
            id=request_id,
            method=method,
            state=state,
            attempt=attempt,
            results=results,
            accepted_at=accepted_at,
            started_at=started_at,
            finished_at=finished_at,
        )
        for (
            n,
            request_id,
            method,
            state,
            attempt,
            results,
            accepted_at,
            started_at,
            finished_at,
        ) in unpack_rows(piece.packed)
    ]


class Newest:
    """Collects the newest requests that `query` asks for from what stores and logs have."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self._rows: dict[tuple[str, int], HistoryRow] = {}
        self._enough_until = -1.0

    async def read_unfinished(
        self, pieces: AsyncGenerator[Packed], passing_over: Container[str] = ()
    ) -> None:
        """Take what is needed from `pieces`, but nothing of the sessions `passing_over`.

        What has not finished must be read before what has: so a request that finishes meanwhile
        is seen at least once, and as finished when it is seen twice.
        """
        async with aclosing(pieces):
            async for piece in pieces:
                if piece.session not in passing_over:
                    self.take(piece)

    async def read_finished(self, pieces: AsyncGenerator[Packed]) -> None:
        """Take what is needed from `pieces`, which come by accepted_at, newest first."""
        async with aclosing(pieces):
            async for piece in pieces:
                if self._enough_until > piece.accepted_at:
                    return
                self.take(piece)

    def take(self, piece: Packed) -> None:
        """Take what is needed of `piece`; it replaces what was known of the same requests."""
        for row in unpack(piece):
            if matches(row, self._query):
                self._rows[row.session, row.n] = row
        if len(self._rows) >= self._query.limit:
            self._cut()

    def _cut(self) -> None:
        rows = self.rows()
        self._rows = {(row.session, row.n): row for row in rows}
        self._enough_until = _age(rows[-1])[0] if rows else float("inf")

    def rows(self) -> list[HistoryRow]:
        """Return what was found, newest first."""
        return nlargest(self._query.limit, self._rows.values(), key=_age)


def matches(row: HistoryRow, query: Query) -> bool:
    """Tell whether `query` asks for `row`; a time that is not known is in no range."""
    at = row.accepted_at
    return (
        (query.state is None or row.state == query.state or _failed(row, query))
        and (query.session is None or row.session == query.session)
        and (query.n is None or row.n == query.n)
        and (query.subject is None or row.subject == query.subject)
        and (query.method is None or row.method == query.method)
        and (query.accepted_after is None or (at is not None and at >= query.accepted_after))
        and (query.accepted_before is None or (at is not None and at < query.accepted_before))
    )


def _failed(row: HistoryRow, query: Query) -> bool:
    return query.state == FAILED and row.state not in {"waiting", "running", DONE}


async def find(history: History, query: Query) -> list[HistoryRow]:
    """Return what `history` has of what `query` asks for, newest first."""
    newest = Newest(query)
    await newest.read_unfinished(history.unfinished_pieces(query))
    await newest.read_finished(history.finished_pieces(query))
    return newest.rows()


def _age(row: HistoryRow) -> tuple[float, str, int]:
    return (row.accepted_at or 0.0, row.session, row.n)
