"""The history: what is projected is found newest first, survives repetitions, and expires."""

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from server.journal import buckets
from server.journal.buckets import Row, pack_finished, pack_unfinished
from server.journal.store import HistoryRow, Packed, Store
from tests.contract.backends import Backend, append_many

NOW = 4e9
"""A time so far ahead that no database expires anything by itself."""


def done(n: int, accepted_at: float | None = None, state: str = "done") -> Row:
    """Return a request accepted `n` seconds after NOW, unless told, that took two seconds."""
    at = NOW + n if accepted_at is None else accepted_at
    return (n, f"id {n}", "echo", state, 1, 3, at, at + 1, at + 2)


def waiting(n: int) -> Row:
    return (n, f"id {n}", "echo", "waiting", 0, None, NOW + n, None, None)


async def finish(
    store: Store, rows: Sequence[Row], session: str = "s", subject: str = "alice", upto: int = 1
) -> None:
    """Project requests that finished, and nothing else."""
    await store.history.project("a", upto, pack_finished(session, subject, rows), [])


async def leave(store: Store, rows: Sequence[Row], session: str = "s", before: str = "") -> str:
    """Project all that has not finished of a session; return it packed."""
    piece = pack_unfinished(session, "alice", rows, before)
    await store.history.project("a", 1, [], [piece])
    return piece.packed


async def found(store: Store, **filters: Any) -> list[int]:
    return [row.n for row in await store.history.find(**filters)]


# Project and find


async def test_what_was_projected_is_found(store: Store) -> None:
    await finish(store, [done(1, NOW + 0.123456)])
    row = HistoryRow(
        session="s",
        n=1,
        state="done",
        id="id 1",
        method="echo",
        subject="alice",
        attempt=1,
        results=3,
        accepted_at=NOW + 0.123456,
        started_at=NOW + 1.123456,
        finished_at=NOW + 2.123456,
    )
    assert await store.history.find() == [row]
    await leave(store, [waiting(2)])
    left = replace(row, n=2, id="id 2", state="waiting", attempt=0, results=None)
    left = replace(left, accepted_at=NOW + 2, started_at=None, finished_at=None)
    assert await store.history.find() == [left, row]


async def test_what_is_not_known_is_none(store: Store) -> None:
    """As of a request whose acceptance is in no log any more."""
    row: Row = (7, None, None, "done", 1, 0, None, None, NOW)
    await store.history.project("a", 1, pack_finished("s", None, [row]), [])
    unknown = HistoryRow(session="s", n=7, state="done", attempt=1, results=0, finished_at=NOW)
    assert await store.history.find() == [unknown]
    await finish(store, [done(1)])
    assert await found(store) == [1, 7]


@pytest.mark.parametrize(
    "text", ["it's", 'a "quoted" \\ text', "$[0]", "]}, {", "Grüße, 世界 🌍", "line\nbreak", "\x01"]
)
async def test_ids_and_methods_may_be_any_text(store: Store, text: str) -> None:
    await finish(store, [(1, text, text, "done", 1, 0, NOW, NOW, NOW)], session=text, subject=text)
    await leave(store, [(1, text, text, "waiting", 0, None, NOW, None, None)], session=f"{text}2")
    for row in (
        *await store.history.find(session=text, subject=text),
        *await store.history.find(session=f"{text}2"),
    ):
        assert (row.id, row.method) == (text, text)
    assert len(await store.history.find()) == 2
    assert [piece.session for piece in await store.history.unfinished([f"{text}2"])] == [f"{text}2"]


async def test_a_session_with_very_many_requests_in_a_chunk(store: Store) -> None:
    await finish(store, [done(n) for n in range(1, 3501)])
    assert await found(store, limit=5000) == list(range(3500, 0, -1))


async def test_a_chunk_with_very_many_sessions(store: Store) -> None:
    finished = [b for n in range(1700) for b in pack_finished(f"s{n}", "alice", [done(n)])]
    left = [pack_unfinished(f"s{n}", "alice", [waiting(n + 1)], "") for n in range(1700)]
    await store.history.project("a", 1, finished, left)
    assert len(await store.history.find(limit=4000)) == 3400
    sessions = [f"s{n}" for n in range(1700)]
    assert len(await store.history.unfinished(sessions)) == 1700


async def test_what_is_unfinished_is_replaced_as_a_whole(store: Store) -> None:
    before = await leave(store, [waiting(1), waiting(2)])
    before = await leave(store, [waiting(2), waiting(3)], before=before)
    assert await found(store) == [3, 2]
    [piece] = await store.history.unfinished(["s", "t"])
    assert piece == Packed(session="s", subject="alice", accepted_at=NOW + 3, packed=before)
    await leave(store, [], before=before)
    assert await found(store) == []
    assert await store.history.unfinished(["s", "t"]) == []


async def test_a_request_that_is_finished_and_unfinished_is_finished(store: Store) -> None:
    """As when it finishes between the two reads of a query."""
    await leave(store, [waiting(1), waiting(2)])
    await finish(store, [done(1)])
    assert [(row.n, row.state) for row in await store.history.find()] == [
        (2, "waiting"),
        (1, "done"),
    ]


# The watermark


async def test_the_watermark_is_kept_per_owner(backend: Backend, store: Store) -> None:
    await append_many(store.log, "a", 7)
    await store.history.project("a", 7, [], [])
    store = await backend.reopen(store)
    assert await store.history.resume("a") == 7
    assert await store.history.resume("b") == 0


async def test_a_watermark_alone_makes_no_log(store: Store) -> None:
    await store.history.project("a", 7, [], [])
    assert await store.log.owners() == []


# Find


async def test_the_newest_are_found_first_and_no_more_than_asked_for(store: Store) -> None:
    await finish(store, [done(n) for n in (2, 5, 1)])
    await finish(store, [done(4), done(3)], session="t")
    await leave(store, [waiting(6)])
    assert await found(store) == [6, 5, 4, 3, 2, 1]
    assert await found(store, limit=3) == [6, 5, 4]
    assert await found(store, limit=0) == []


async def test_requests_accepted_at_once_are_found_last_n_first(store: Store) -> None:
    await finish(store, [done(n, NOW) for n in (1, 2)])
    await finish(store, [done(n, NOW) for n in (3, 4)])
    assert await found(store) == [4, 3, 2, 1]
    assert await found(store, limit=3) == [4, 3, 2]


@pytest.mark.parametrize(
    ("filters", "numbers"),
    [
        ({"session": "s"}, [5, 2, 1]),
        ({"subject": "alice"}, [5, 2, 1]),
        ({"subject": "bob"}, [4, 3]),
        ({"state": "done"}, [4, 1]),
        ({"state": "waiting"}, [5]),
        ({"session": "s", "state": "timeout"}, [2]),
        ({"session": "t", "subject": "bob", "state": "done"}, [4]),
        ({"session": "s", "subject": "bob"}, []),
        ({"session": "nobody"}, []),
        ({"state": "cancelled"}, []),
    ],
)
async def test_every_given_filter_must_match(
    store: Store, filters: dict[str, str], numbers: list[int]
) -> None:
    await finish(store, [done(1), done(2, state="timeout")])
    await finish(store, [done(3, state="timeout"), done(4)], session="t", subject="bob")
    await leave(store, [waiting(5)])
    assert await found(store, **filters) == numbers


@pytest.mark.parametrize(
    "filters", [{}, {"session": "s1"}, {"subject": "alice"}, {"session": "s1", "state": "done"}]
)
async def test_only_the_newest_buckets_are_read(
    store: Store, filters: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for chunk in range(100):
        rows = [done(n) for n in range(chunk * 10, chunk * 10 + 10)]
        await finish(store, rows, session=f"s{chunk % 2}", upto=chunk)
    unpacked: list[Packed] = []
    unpack = buckets.unpack

    def counting(piece: Packed) -> list[HistoryRow]:
        unpacked.append(piece)
        return unpack(piece)

    monkeypatch.setattr(buckets, "unpack", counting)
    assert len(await found(store, limit=20, **filters)) == 20
    assert len(unpacked) == 2


async def test_buckets_that_overlap_are_read_as_far_as_they_do(store: Store) -> None:
    """A long request of one session finishes long after what others were given later."""
    await finish(store, [done(1), done(100)])
    await finish(store, [done(n) for n in range(2, 50)], session="t")
    assert await found(store, limit=3) == [100, 49, 48]


# Expire


async def test_a_bucket_expires_when_its_last_request_has(store: Store) -> None:
    await finish(store, [done(1), done(2)])
    await finish(store, [done(3), done(60)])
    await leave(store, [waiting(4)])
    assert await store.history.expire(NOW + 4) == 0
    assert await store.history.expire(NOW + 5) == 2
    assert await found(store) == [60, 4, 3]
    assert await store.history.expire(NOW + 5) == 0


async def test_many_buckets_expire(store: Store) -> None:
    finished = [b for n in range(150) for b in pack_finished(f"s{n}", "alice", [done(1), done(2)])]
    await store.history.project("a", 1, finished, [])
    assert await store.history.expire(NOW + 5) == 300
    assert await found(store) == []


async def test_history_is_read_without_the_log(backend: Backend, store: Store) -> None:
    await finish(store, [done(1)])
    command = await backend.open(log=False)
    assert await found(command) == [1]
