"""The history is a projection: rows are merged, found newest first, and expire."""

from typing import Any

import pytest
from msgspec.structs import replace

from server.journal.store import HistoryRow, Store
from tests.contract.backends import Backend, append_many

NOW = 4e9
"""A time so far ahead that no database expires anything by itself."""

WAITING = HistoryRow(
    session="s",
    n=1,
    state="waiting",
    id="x",
    method="echo",
    subject="alice",
    attempt=0,
    accepted_at=NOW + 0.123456,
)


def waiting(n: int, **fields: Any) -> HistoryRow:
    """Return a request accepted at `n` seconds from NOW."""
    return replace(WAITING, **({"n": n, "id": f"id {n}", "accepted_at": NOW + n} | fields))


async def test_what_was_projected_is_found(store: Store) -> None:
    await store.history.project("a", 1, [WAITING])
    assert await store.history.find() == [WAITING]


async def test_fields_that_are_none_keep_their_value(store: Store) -> None:
    await store.history.project("a", 1, [WAITING])
    running = HistoryRow(session="s", n=1, state="running", attempt=1, started_at=NOW + 101.5)
    done = HistoryRow(session="s", n=1, state="done", attempt=1, results=3, finished_at=NOW + 102.5)
    await store.history.project("a", 2, [running, done])
    assert await store.history.find() == [
        replace(
            WAITING,
            state="done",
            attempt=1,
            results=3,
            started_at=NOW + 101.5,
            finished_at=NOW + 102.5,
        )
    ]


async def test_projecting_the_same_rows_again_changes_nothing(store: Store) -> None:
    rows = [waiting(n) for n in range(1, 5)]
    await store.history.project("a", 1, rows)
    await store.history.project("a", 1, rows)
    assert await store.history.find() == rows[::-1]
    assert await store.history.projected("a") == 1


async def test_many_rows_at_once(store: Store) -> None:
    await store.history.project("a", 9, [waiting(n) for n in range(1, 1301)])
    found = await store.history.find(limit=2000)
    assert [row.n for row in found] == list(range(1300, 0, -1))


async def test_the_watermark_is_kept_per_owner(backend: Backend, store: Store) -> None:
    await append_many(store.log, "a", 7)
    await store.history.project("a", 7, [])
    store = await backend.reopen(store)
    assert await store.history.projected("a") == 7
    assert await store.history.projected("b") == 0


async def test_a_watermark_alone_makes_no_log(store: Store) -> None:
    await store.history.project("a", 7, [])
    assert await store.log.owners() == []


async def test_the_newest_are_found_first_and_no_more_than_asked_for(store: Store) -> None:
    await store.history.project("a", 1, [waiting(n) for n in (2, 5, 1, 4, 3)])
    assert [row.n for row in await store.history.find(limit=3)] == [5, 4, 3]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"session": "s"}, [3, 1]),
        ({"subject": "alice"}, [2, 1]),
        ({"state": "done"}, [3, 2]),
        ({"session": "s", "state": "done"}, [3]),
        ({"session": "s", "subject": "alice", "state": "waiting"}, [1]),
        ({"session": "nobody"}, []),
    ],
)
async def test_every_given_filter_must_match(
    store: Store, filters: dict[str, str], found: list[int]
) -> None:
    rows = [
        waiting(1),
        waiting(2, session="s2", state="done"),
        waiting(3, subject="bob", state="done"),
    ]
    await store.history.project("a", 1, rows)
    assert [row.n for row in await store.history.find(**filters)] == found


async def test_requests_expire_by_when_they_finished(store: Store) -> None:
    rows = [
        waiting(1, state="done", finished_at=NOW + 50),
        waiting(2, state="done", finished_at=NOW + 70),
        waiting(3),
        waiting(4, state="done", finished_at=NOW + 60, accepted_at=None),
    ]
    await store.history.project("a", 1, [*rows, waiting(5, state="done", finished_at=NOW + 69)])
    assert await store.history.expire(NOW + 70) == 3
    assert {row.n for row in await store.history.find()} == {2, 3}
    assert await store.history.expire(NOW + 70) == 0


async def test_many_requests_expire(store: Store) -> None:
    rows = [waiting(n, state="done", finished_at=NOW + 1000) for n in range(1, 601)]
    await store.history.project("a", 1, rows)
    assert await store.history.expire(NOW + 1001) == 600


async def test_history_is_read_without_the_log(backend: Backend, store: Store) -> None:
    await store.history.project("a", 1, [WAITING])
    command = await backend.open(log=False)
    assert await command.history.find() == [WAITING]
