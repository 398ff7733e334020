"""The request log is built from the log: in parts, by many, after crashes, always the same."""

import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from server.journal import buckets, projection
from server.journal.entries import (
    DONE,
    Accepted,
    Acked,
    Claimed,
    End,
    Entry,
    Finished,
    Opened,
    Snapshot,
    Started,
    encode_commit,
)
from server.journal.log import Unavailable
from server.journal.mongodb import MongodbStore
from server.journal.projection import Projector, project
from server.journal.sqlite import SqliteStore
from server.journal.store import HistoryRow, Store

SESSIONS = ("s", "t", "u")
NEVER = 1e12
"""Later than anything here."""


def request(n: int) -> str:
    return f'{{"type":"request","id":"id {n}","method":"echo","params":[{n}]}}'


def accepted(session: str, first: int, count: int, time: float) -> Accepted:
    frames = "\n".join(request(n) for n in range(first, first + count))
    return Accepted(session, first, f"user of {session}", time, frames)


class Life:
    """Sessions that do what sessions do, at random; `rows` is what the history must say of it."""

    def __init__(self, seed: int) -> None:
        self.rows: dict[tuple[str, int], HistoryRow] = {}
        self._random = random.Random(seed)  # noqa: S311 - not a secret
        self._last = dict.fromkeys(SESSIONS, 0)
        self._time = 4e9  # so far ahead that no database expires anything by itself

    def commits(self, count: int) -> Iterator[list[Entry]]:
        """Yield the entries of so many commits."""
        yield [Opened(session, f"user of {session}", "", 4e9) for session in SESSIONS]
        for _ in range(count):
            yield [self._step(self._random.choice(SESSIONS)) for _ in range(4)]

    def _step(self, session: str) -> Entry:
        self._time += 1
        unfinished = [row for row in self.rows.values() if row.session == session]
        unfinished = [row for row in unfinished if row.finished_at is None]
        what = self._random.random()
        if not unfinished or what < 0.4:
            return self._accept(session, self._random.randint(1, 3))
        if what < 0.5:
            return self._start(unfinished[0])
        if what < 0.6:  # one that waits is cancelled
            return Finished(session, [self._end(unfinished[-1], 0, "cancelled")])
        return Finished(session, [self._end(row, 1, DONE) for row in unfinished[:2]])

    def _accept(self, session: str, count: int) -> Accepted:
        first = self._last[session] + 1
        self._last[session] += count
        for n in range(first, first + count):
            self.rows[session, n] = HistoryRow(
                session=session,
                n=n,
                state="waiting",
                id=f"id {n}",
                method="echo",
                subject=f"user of {session}",
                attempt=0,
                accepted_at=self._time,
            )
        return accepted(session, first, count, self._time)

    def _start(self, row: HistoryRow) -> Started:
        row.state = "running"
        row.attempt = 1
        row.started_at = self._time
        return Started(row.session, row.n, 1, self._time)

    def _end(self, row: HistoryRow, attempt: int, outcome: str) -> End:
        started = 0.0 if outcome != DONE else row.started_at or self._time - 0.5
        row.state = outcome
        row.attempt = attempt
        row.results = attempt
        row.started_at = started or row.started_at
        row.finished_at = self._time
        return End(row.n, attempt, attempt, outcome, started, self._time, 0, [b"1"] * attempt, b"")


async def write(store: Store, owner: str, commits: Sequence[Sequence[Entry]], first: int) -> None:
    for seq, entries in enumerate(commits, start=first):
        await store.log.append(owner, seq, encode_commit(entries))


async def assert_history(store: Store, rows: dict[tuple[str, int], HistoryRow]) -> None:
    found = await store.history.find(limit=10_000)
    assert sorted(found, key=lambda row: (row.session, row.n)) == [
        rows[key] for key in sorted(rows)
    ]
    if isinstance(store, MongodbStore):  # nothing that says nothing is left
        assert await store.history._unfinished.count_documents({"packed": ""}) == 0


# In parts


@pytest.mark.parametrize("chunk_requests", [1, 5, 10_000])
async def test_the_history_says_what_the_log_says(
    store: Store, monkeypatch: pytest.MonkeyPatch, chunk_requests: int
) -> None:
    monkeypatch.setattr(projection, "CHUNK_REQUESTS", chunk_requests)
    life = Life(seed=1)
    await write(store, "1-a", list(life.commits(60)), first=1)
    assert await project(store, "1-a") == 61
    await assert_history(store, life.rows)


@pytest.mark.parametrize("same", [True, False])
async def test_a_log_can_be_projected_in_parts(store: Store, same: bool) -> None:
    """By the process that writes it, again and again, and by others, once each."""
    life = Life(seed=2)
    projector = Projector(store, "1-a")
    for seq, entries in enumerate(life.commits(60), start=1):
        await write(store, "1-a", [entries], first=seq)
        if seq % 5 == 0:
            assert await (projector if same else Projector(store, "1-a")).run() == seq
            await assert_history(store, life.rows)


async def test_projecting_what_is_projected_changes_nothing(store: Store) -> None:
    life = Life(seed=3)
    await write(store, "1-a", list(life.commits(20)), first=1)
    projector = Projector(store, "1-a")
    for each in (projector, projector, Projector(store, "1-a")):
        assert await each.run() == 21
    await assert_history(store, life.rows)


async def test_requests_end_in_the_log_of_whoever_claimed_their_session(store: Store) -> None:
    await write(store, "1-a", [[Opened("s", "user of s", "", 1.0), accepted("s", 1, 3, 5.0)]], 1)
    await write(store, "1-a", [[Started("s", 1, 1, 6.0)]], 2)
    await project(store, "1-a")
    await store.log.seal("1-a", "2-b")
    taken = [Snapshot("s", "user of s", "", 3, False, [], {}, {}), Claimed("1-a")]
    interrupted = End(1, 1, 0, "interrupted", 0, 8.0, 0, [], b"{}")
    ends = Finished("s", [interrupted, End(2, 1, 1, DONE, 8.5, 9.0, 0, [b"1"], b"")])
    await write(store, "2-b", [taken, [ends, Acked("s", [1, 2], 0, 0)]], 1)
    await project(store, "2-b")
    rows = {row.n: row for row in await store.history.find(session="s")}
    assert {n: (row.state, row.started_at) for n, row in rows.items()} == {
        1: ("interrupted", 6.0),
        2: (DONE, 8.5),
        3: ("waiting", None),
    }
    assert {(row.method, row.subject, row.accepted_at) for row in rows.values()} == {
        ("echo", "user of s", 5.0)
    }


# After crashes


class Fragile:
    """Stands before what writes; the `fail_at`-th write fails, before it is done or after."""

    WRITES = frozenset({"bulk_write", "update_one", "delete_many", "run"})

    def __init__(self, fail_at: int, *, after: bool) -> None:
        self.failed = False
        self._left = fail_at
        self._after = after

    def protect(self, history: Any, *names: str) -> None:
        for name in names:
            setattr(history, name, _Proxy(self, getattr(history, name)))

    async def call(self, real: Any, *args: Any, **options: Any) -> Any:
        self._left -= 1
        self.failed |= self._left == 0
        if self._left == 0 and not self._after:
            raise AutoReconnect("crash")
        outcome = await real(*args, **options)
        if self._left == 0:
            raise AutoReconnect("crash")
        return outcome


class _Proxy:
    def __init__(self, fragile: Fragile, real: Any) -> None:
        self._fragile = fragile
        self._real = real

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if name not in Fragile.WRITES:
            return real

        async def call(*args: Any, **options: Any) -> Any:
            return await self._fragile.call(real, *args, **options)

        return call


def fragile(store: Store, fail_at: int, *, after: bool) -> Fragile:
    """Make the history of `store` fail once."""
    fragile = Fragile(fail_at, after=after)
    if isinstance(store, SqliteStore):
        fragile.protect(store.history, "_writer")
    else:
        fragile.protect(store.history, "_buckets", "_unfinished", "_owners")
    return fragile


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("cut_before", "cut_then"), [(20, 7), (7, 20), (10_000, 3)])
async def test_a_crash_changes_nothing_wherever_the_log_is_cut_then(
    store: Store, monkeypatch: pytest.MonkeyPatch, after: bool, cut_before: int, cut_then: int
) -> None:
    """Of all writes, one after the other; small buckets, so that many are cut in two."""
    monkeypatch.setattr(buckets, "BUCKET_ROWS", 4)
    real = dict(vars(store.history))
    rows: dict[tuple[str, int], HistoryRow] = {}
    fail_at = 0
    failed = True
    while failed:
        fail_at += 1
        owner = f"{fail_at:03d}-a"
        life = Life(seed=fail_at)
        renamed = [_rename(entries, owner) for entries in life.commits(12)]
        await write(store, owner, renamed, first=1)
        crash = fragile(store, fail_at, after=after)
        monkeypatch.setattr(projection, "CHUNK_REQUESTS", cut_before)
        projector = Projector(store, owner)
        with suppress(AutoReconnect, Unavailable):
            await projector.run()
        failed = crash.failed
        vars(store.history).update(real)
        monkeypatch.setattr(projection, "CHUNK_REQUESTS", cut_then)
        again = projector if fail_at % 2 else Projector(store, owner)
        assert await again.run() == 13
        for row in life.rows.values():
            row.session += owner
            row.subject = f"{row.subject}{owner}"
            rows[row.session, row.n] = row
        await assert_history(store, rows)
    assert fail_at >= 2
    # Nothing is there twice, which find() would not show.
    finished = [row for row in rows.values() if row.finished_at is not None]
    assert await store.history.expire(NEVER) == len(finished)


def _rename(entries: Sequence[Entry], suffix: str) -> list[Entry]:
    for entry in entries:
        assert isinstance(entry, Opened | Accepted | Started | Finished)
        entry.session += suffix
        if isinstance(entry, Opened | Accepted):
            entry.subject += suffix
    return list(entries)
