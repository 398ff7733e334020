"""The request log operators query, built from the logs by a background task that may lag.

read commits after the watermark -> one row per request -> merge into the history
"""

import asyncio
from collections.abc import Iterable
from typing import Final

from server.journal.entries import Accepted, Entry, Finished, Started, decode_commit
from server.journal.store import HistoryRow, Store

CHUNK_ROWS: Final = 2000
"""Rows merged at a time, so that appends are not held up."""


def rows(entries: Iterable[Entry]) -> dict[tuple[str, int], HistoryRow]:
    """Return what `entries` say of each request, keyed by session and n."""
    found: dict[tuple[str, int], HistoryRow] = {}
    for entry in entries:
        match entry:
            case Accepted():
                found[entry.session, entry.n] = HistoryRow(
                    session=entry.session,
                    n=entry.n,
                    state="waiting",
                    id=entry.id,
                    method=entry.method,
                    subject=entry.subject,
                    attempt=0,
                    accepted_at=entry.time,
                )
            case Started():
                row = _row(found, entry.session, entry.n)
                row.state = "running"
                row.attempt = entry.attempt
                row.started_at = entry.time
            case Finished():
                row = _row(found, entry.session, entry.n)
                row.state = entry.outcome
                row.attempt = entry.attempt
                row.results = entry.results
                row.finished_at = entry.time
            case _:
                pass
    return found


def _row(found: dict[tuple[str, int], HistoryRow], session: str, n: int) -> HistoryRow:
    row = found.get((session, n))
    if row is None:
        row = found[session, n] = HistoryRow(session=session, n=n, state="")
    return row


async def project(store: Store, owner: str) -> int:
    """Bring the history up to the end of `owner`'s log; return the seq it has reached."""
    reached = await store.history.projected(owner)
    pending: dict[tuple[str, int], HistoryRow] = {}
    last = reached
    async for commit in store.log.read(owner, reached):
        for key, row in rows(decode_commit(commit.data)).items():
            pending[key] = _merge(pending.get(key), row)
        last = commit.seq
        if len(pending) >= CHUNK_ROWS:
            await store.history.project(owner, last, list(pending.values()))
            pending.clear()
            reached = last
            await asyncio.sleep(0)
    if last != reached or pending:
        await store.history.project(owner, last, list(pending.values()))
    return last


def _merge(old: HistoryRow | None, new: HistoryRow) -> HistoryRow:
    if old is None:
        return new
    for field in ("attempt", "results", "started_at", "finished_at"):
        value = getattr(new, field)
        if value is not None:
            setattr(old, field, value)
    old.state = new.state
    return old
