"""What operators read is what the logs say at this moment, however far behind the history is."""

from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

import pytest

from server.journal.entries import (
    Accepted,
    Acked,
    Closed,
    Entry,
    Finished,
    Opened,
    Started,
    encode_commit,
)
from server.journal.folding import living_sessions
from server.journal.log import Commit, Damaged, Log
from server.journal.projection import project
from server.journal.store import FAILED, Query, Store
from server.journal.tail import find_now
from tests.contract.backends import Backend
from tests.contract.test_recovery import A_LIFE, accepted, finished, recovered, write

LATER: list[Entry] = [
    finished(2),
    Started("s", 3, 1, 3.0),
    Opened("t", "bob", "", 3.0),
    Accepted("t", 1, "bob", 5.0, '{"type":"request","id":"t1","method":"words"}'),
]
NOW = {("s", 1): "done", ("s", 2): "done", ("s", 3): "running", ("t", 1): "waiting"}


async def write_each(store: Store, owner: str, entries: list[Entry]) -> None:
    """Write a commit for each entry; the log goes on where it was."""
    known = [info for info in await store.log.owners() if info.owner == owner]
    seqs = [commit.seq async for commit in store.log.read(owner, 0)] if known else []
    for seq, entry in enumerate(entries, max(seqs, default=0) + 1):
        await store.log.append(owner, seq, _commit(entry))


def _commit(entry: Entry) -> bytes:
    return encode_commit([entry])


async def states(store: Store, query: Query | None = None) -> dict[tuple[str, int], str]:
    rows = await find_now(store, query or Query())
    return {(row.session, row.n): row.state for row in rows}


@pytest.mark.parametrize("projected", ["nothing", "a part", "all"])
async def test_what_the_history_lacks_is_read_from_the_log(store: Store, projected: str) -> None:
    await write_each(store, "1-a", A_LIFE)
    if projected == "a part":
        await project(store, "1-a")
    await write_each(store, "1-a", LATER)
    if projected == "all":
        await project(store, "1-a")
    assert await states(store) == NOW
    rows = await find_now(store, Query())
    assert (rows[0].session, rows[0].n) == ("t", 1)
    assert {row.method for row in rows if row.session == "s"} == {"echo"}


async def test_what_is_read_is_not_written(store: Store) -> None:
    await write_each(store, "1-a", A_LIFE)
    await states(store)
    assert await store.history.find() == []
    assert await store.history.projected("1-a") == 0


async def test_it_is_read_without_the_lock_while_another_writes(
    backend: Backend, store: Store
) -> None:
    await write_each(store, "1-a", [*A_LIFE, *LATER])
    command = await backend.open(log=False)
    assert await states(command) == NOW
    assert set(await living_sessions(command.log_reader)) == {"s", "t"}
    await store.log.append("1-a", 12, _commit(finished(3)))
    assert (await states(command))["s", 3] == "done"


FOUND: list[tuple[Query, set[tuple[str, int]]]] = [
    (Query(state="waiting"), {("t", 1)}),
    (Query(state="running"), {("s", 3)}),
    (Query(state="done"), {("s", 1), ("s", 2)}),
    (Query(state=FAILED), set()),
    (Query(subject="bob"), {("t", 1)}),
    (Query(session="s", n=2), {("s", 2)}),
    (Query(method="words"), {("t", 1)}),
    (Query(accepted_after=2.0), {("t", 1)}),
    (Query(accepted_before=2.0), {("s", 1), ("s", 2), ("s", 3)}),
    (Query(limit=1), {("t", 1)}),
]


async def test_every_given_filter_must_match(store: Store) -> None:
    """Whether what it looks at is in the log or in the history."""
    await write_each(store, "1-a", A_LIFE)
    await project(store, "1-a")
    await write_each(store, "1-a", LATER)
    from_log = [set(await states(store, query)) for query, _ in FOUND]
    assert from_log == [found for _, found in FOUND]
    await project(store, "1-a")
    assert [set(await states(store, query)) for query, _ in FOUND] == from_log


async def test_failed_is_any_error(store: Store) -> None:
    failed = Finished("s", [finished(2).ends[0]])
    failed.ends[0].outcome = "timeout"
    await write_each(store, "1-a", A_LIFE)
    await project(store, "1-a")
    await write_each(store, "1-a", [failed])
    await project(store, "1-a")
    assert await states(store, Query(state=FAILED)) == {("s", 2): "timeout"}
    assert await states(store, Query(state="timeout")) == {("s", 2): "timeout"}


async def test_a_request_that_went_over_to_a_newer_log_is_followed(store: Store) -> None:
    """As while a server recovers: the older log is still there, the newer one goes on."""
    await write(store, "1-a", A_LIFE)
    await recovered(store, "2-b")
    end = finished(2, attempt=2)
    await write_each(store, "2-b", [end])
    assert await states(store) == {("s", 1): "done", ("s", 2): "done", ("s", 3): "waiting"}
    session = (await living_sessions(store.log_reader))["s"]
    assert [(r.n, r.outcome) for r in session.live.values()] == [
        (1, "done"),
        (2, "done"),
        (3, None),
    ]


MEDDLED_WITH = 6
"""Until there, requests 2 and 3 wait."""


class Meddling:
    """The logs, to which something is done when some of the first commits have been read."""

    def __init__(self, log: Log, deed: list[Coroutine[Any, Any, None]]) -> None:
        self.owners = log.owners
        self._log = log
        self._deed = deed

    async def read(self, owner: str, after: int) -> AsyncGenerator[Commit]:
        async for commit in self._log.read(owner, after):
            yield commit
            if self._deed and commit.seq == MEDDLED_WITH:
                await self._deed.pop()


async def trim(store: Store) -> None:
    """What a checkpoint does: all is projected, and said once more by a snapshot."""
    await project(store, "1-a")
    sessions = await living_sessions(store.log_reader)
    last = [commit.seq async for commit in store.log.read("1-a", 0)][-1]
    for seq, session in enumerate(sessions.values(), last + 1):
        await store.log.append("1-a", seq, _commit(session.snapshot()))
    await store.log.trim("1-a", last)


async def take_over(store: Store) -> None:
    """What the next server does: it claims the sessions, then the log is projected and gone."""
    await recovered(store, "2-b")
    await project(store, "1-a")
    await store.log.forget("1-a")


class Meddled:
    """The store, whose logs are meddled with."""

    def __init__(self, store: Store, deed: Coroutine[Any, Any, None]) -> None:
        self.history = store.history
        self.deeds = [deed]
        self.log_reader = Meddling(store.log, self.deeds)


@pytest.mark.parametrize("change", [trim, take_over])
async def test_a_log_that_goes_while_it_is_read_is_read_again(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Store], Coroutine[Any, Any, None]],
) -> None:
    monkeypatch.setattr("server.journal.sqlite_log.READ_BYTES", 1)
    monkeypatch.setattr("server.journal.mongodb_log.READ_DOCUMENTS", 1)
    await write_each(store, "1-a", [*A_LIFE, *LATER])
    meddled: Any = Meddled(store, change(store))
    assert await states(meddled, Query(state="waiting")) == {("t", 1): "waiting"}
    assert not meddled.deeds
    assert await states(store) == NOW


@pytest.mark.parametrize("change", [trim, take_over])
async def test_sessions_whose_log_goes_while_it_is_read_are_read_again(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Store], Coroutine[Any, Any, None]],
) -> None:
    monkeypatch.setattr("server.journal.sqlite_log.READ_BYTES", 1)
    monkeypatch.setattr("server.journal.mongodb_log.READ_DOCUMENTS", 1)
    await write_each(store, "1-a", [*A_LIFE, *LATER])
    meddled: Any = Meddled(store, change(store))
    sessions = await living_sessions(meddled.log_reader)
    assert {name: sorted(s.live) for name, s in sessions.items()} == {"s": [1, 2, 3], "t": [1]}
    assert not meddled.deeds


async def test_a_commit_that_is_missing_is_damage_and_not_waited_for(store: Store) -> None:
    await write_each(store, "1-a", A_LIFE)
    await store.log.append("1-a", 8, _commit(Acked("s", [9], 0, 0)))
    with pytest.raises(Damaged):
        await living_sessions(store.log_reader)


async def test_a_session_that_is_over_is_not_living(store: Store) -> None:
    await write_each(store, "1-a", [*A_LIFE, Closed("s"), finished(2), finished(3)])
    assert await living_sessions(store.log_reader) == {}
    assert await states(store) == {("s", n): "done" for n in (1, 2, 3)}


async def test_what_was_accepted_in_one_go_is_all_there(store: Store) -> None:
    await write_each(store, "1-a", [A_LIFE[0], accepted(1), accepted(2)])
    assert await states(store) == {("s", 1): "waiting", ("s", 2): "waiting"}
