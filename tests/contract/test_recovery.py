"""Recovery, checkpoints and the request log on every store, without sockets."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress

import pytest

from server import demo
from server.journal.checkpoint import SLICE_BYTES, Checkpointer
from server.journal.committer import Committer
from server.journal.entries import (
    Accepted,
    Acked,
    Claimed,
    Closed,
    End,
    Entry,
    Finished,
    Opened,
    Started,
    Stopped,
    decode_commit,
)
from server.journal.log import Commit, Sealed, Unavailable
from server.journal.projection import Projector, project
from server.journal.state import SessionState, State, fold
from server.journal.store import Store
from server.recovery import new_owner, recover, seal_older
from tests.contract.backends import Backend


@asynccontextmanager
async def writing(store: Store, owner: str) -> AsyncIterator[Committer]:
    """Give a committer that runs; without an end of its own, as after SIGKILL."""
    committer = Committer(store.log, owner)
    await committer.begin()
    running = asyncio.create_task(committer.run())
    try:
        yield committer
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError, Sealed):
            await running


def accepted(n: int, session: str = "s") -> Accepted:
    frame = f'{{"type":"request","id":"id{n}","method":"echo","params":{{"text":1}}}}'
    return Accepted(session, n, "alice", 1.0, frame)


def finished(n: int, session: str = "s", attempt: int = 1) -> Finished:
    return Finished(session, [End(n, attempt, 1, "done", 1.5, 2.0, 0, [b'"x"'], b"")])


A_LIFE: list[Entry] = [
    Opened("s", "alice", "", 0.5),
    accepted(1),
    Started("s", 1, 1, 1.5),
    finished(1),
    accepted(2),
    accepted(3),
    Started("s", 2, 1, 2.5),
]
"""One request done and not acknowledged, one running, one waiting."""


async def write(store: Store, owner: str, entries: list[Entry]) -> None:
    async with writing(store, owner) as committer:
        for entry in entries:
            committer.add(entry)
        await committer.durable()


async def take_over(store: Store, committer: Committer) -> list[SessionState]:
    older = await seal_older(store.log, committer.owner)
    return await recover(store.log, committer, demo.handlers, older)


async def recovered(store: Store, owner: str) -> list[SessionState]:
    async with writing(store, owner) as committer:
        return await take_over(store, committer)


async def folded(store: Store, owner: str) -> State:
    state = State()
    async for commit in store.log.read(owner, 0):
        fold(state, decode_commit(commit.data))
    return state


def summary(session: SessionState) -> list[tuple[int, str | None, int, list[bytes]]]:
    return [(r.n, r.outcome, r.attempt, list(r.results)) for r in session.live.values()]


async def test_recovery_finds_what_was_done_and_what_was_not(store: Store) -> None:
    await write(store, "1-a", A_LIFE)
    [session] = await recovered(store, "2-b")
    assert (session.id, session.subject, session.last_n) == ("s", "alice", 3)
    assert summary(session) == [(1, "done", 1, [b'"x"']), (2, None, 1, []), (3, None, 1, [])]


async def test_a_store_that_goes_away_while_a_log_is_read_only_delays_recovery(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(store, "1-a", A_LIFE)
    monkeypatch.setattr("server.recovery.RETRY_SECONDS", 0.01)
    read = store.log.read
    outages = iter([True, True, False])

    async def interrupted_read(owner: str, after: int) -> AsyncGenerator[Commit, None]:
        outage = next(outages)
        async for commit in read(owner, after):
            yield commit
            if outage:
                raise Unavailable("the store is gone")

    monkeypatch.setattr(store.log, "read", interrupted_read)
    [session] = await recovered(store, "2-b")
    assert summary(session) == [(1, "done", 1, [b'"x"']), (2, None, 1, []), (3, None, 1, [])]


async def test_a_log_that_its_paused_owner_trims_at_the_last_moment_is_recovered(
    store: Store,
) -> None:
    """It was listed before; what it trims is in a checkpoint behind it."""
    state = State()
    fold(state, A_LIFE)
    async with writing(store, "1-a") as committer:
        for entry in [*A_LIFE, state.sessions["s"].snapshot()]:
            committer.add(entry)
            await committer.durable()
    older = await seal_older(store.log, "2-b")
    await store.log.trim("1-a", len(A_LIFE) + 1)
    async with writing(store, "2-b") as committer:
        [session] = await recover(store.log, committer, demo.handlers, older)
    assert [n for n, _, _, _ in summary(session)] == [1, 2, 3]


async def test_a_log_that_was_claimed_is_not_read_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many owners have died since, before it was forgotten."""
    await write(store, "1-a", A_LIFE)
    await recovered(store, "2-b")
    await recovered(store, "3-c")
    read = store.log.read
    owners: list[str] = []

    def noted_read(owner: str, after: int) -> AsyncGenerator[Commit, None]:
        owners.append(owner)
        return read(owner, after)

    monkeypatch.setattr(store.log, "read", noted_read)
    [session] = await recovered(store, "4-d")
    assert owners == ["3-c"]
    assert [n for n, _, _, _ in summary(session)] == [1, 2, 3]


async def test_after_an_orderly_stop_only_what_started_counts_as_started(store: Store) -> None:
    await write(store, "1-a", [*A_LIFE, Stopped()])
    [session] = await recovered(store, "2-b")
    assert [attempt for _, _, attempt, _ in summary(session)] == [1, 1, 0]


async def test_what_clients_say_while_the_server_stops_makes_it_no_crash(store: Store) -> None:
    late: list[Entry] = [Acked("s", [1], 0, 0), accepted(4), Closed("s")]
    await write(store, "1-a", [*A_LIFE, Stopped(), *late])
    [session] = await recovered(store, "2-b")
    assert summary(session) == [(2, None, 1, []), (3, None, 0, []), (4, None, 0, [])]


async def test_what_was_claimed_is_durable_in_the_new_log(store: Store) -> None:
    await write(store, "1-a", A_LIFE)
    [session] = await recovered(store, "2-b")
    state = await folded(store, "2-b")
    assert state.claimed == {"1-a"}
    assert summary(state.sessions["s"]) == summary(session)


async def test_a_claimed_log_is_not_claimed_again(store: Store) -> None:
    """Its sessions went on elsewhere: what it says of them is out of date."""
    await write(store, "1-a", A_LIFE)
    async with writing(store, "2-b") as committer:
        await take_over(store, committer)
        committer.add(finished(2, attempt=2))
        await committer.durable()
    [session] = await recovered(store, "3-c")
    assert [(n, outcome) for n, outcome, _, _ in summary(session)] == [
        (1, "done"),
        (2, "done"),
        (3, None),
    ]


async def test_a_recovery_that_was_killed_is_done_again(store: Store) -> None:
    """It had claimed some sessions, but not said that it had them all."""
    other: list[Entry] = [Opened("t", "bob", "", 0.5), accepted(1, "t")]
    await write(store, "1-a", [*A_LIFE, *other])
    state = await folded(store, "1-a")
    await store.log.seal("1-a", "2-b")
    await write(store, "2-b", [state.sessions["s"].snapshot()])
    sessions = await recovered(store, "3-c")
    assert {session.id: len(session.live) for session in sessions} == {"s": 3, "t": 1}


async def test_an_owner_that_was_recovered_cannot_write_any_more(
    backend: Backend, store: Store
) -> None:
    async with writing(store, "1-a") as paused:
        for entry in A_LIFE:
            paused.add(entry)
        await paused.durable()
        await recovered(await backend.another(store), "2-b")
        late = Committer(store.log, "1-a")
        late._next_seq = paused.next_seq
        late.add(accepted(4))
        waiting = asyncio.ensure_future(late.durable())
        with pytest.raises(Sealed):
            await late.run()
        waiting.cancel()


async def test_an_owner_with_nothing_to_say_yet_cannot_write_any_more_either(store: Store) -> None:
    """It may only be paused: the first of all, whose sessions nobody knows, and any other."""
    async with writing(store, "1-a") as first:
        await take_over(store, first)
        assert await recovered(store, "2-b") == []
        with pytest.raises(Sealed):
            await store.log.append("1-a", first.next_seq, b"")


async def test_an_owner_that_wakes_up_late_leaves_the_newer_one_alone(
    backend: Backend, store: Store
) -> None:
    await write(store, "1-a", A_LIFE)
    async with writing(await backend.another(store), "3-c") as newer:
        await take_over(store, newer)
        await store.log.forget("1-a")
        with pytest.raises(Sealed):
            await seal_older(store.log, "2-b")
        await store.log.append("3-c", newer.next_seq, b"")


async def test_of_two_recoveries_at_once_exactly_one_goes_on(
    backend: Backend, store: Store
) -> None:
    await write(store, "1-a", A_LIFE)
    stores = [store, await backend.another(store)]

    async def attempt(store: Store, owner: str) -> list[SessionState]:
        committer = Committer(store.log, owner)
        running = asyncio.ensure_future(committer.run())
        recovering = asyncio.ensure_future(take_over(store, committer))
        # As the server does: with a log that was lost there is nothing to wait for any more.
        done, pending = await asyncio.wait(
            [running, recovering], return_when=asyncio.FIRST_COMPLETED
        )
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        if recovering in done:
            return recovering.result()
        running.result()
        raise AssertionError("a committer ends with Sealed only")

    outcomes = await asyncio.gather(
        *(attempt(one, owner) for one, owner in zip(stores, ("2-b", "3-c"), strict=True)),
        return_exceptions=True,
    )
    final = await recovered(store, "4-d")
    assert [summary(session) for session in final] == [
        [(1, "done", 1, [b'"x"']), (2, None, 1, []), (3, None, 1, [])]
    ]
    winners = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert all(isinstance(o, Sealed) for o in outcomes if isinstance(o, BaseException))
    # Both may have run to their end one after the other; then the later one has all.
    assert winners


async def test_a_new_owner_sorts_after_all_others_whatever_the_clock_says(store: Store) -> None:
    first = await new_owner(store.log, 1000)
    await write(store, first, [Opened("s", "alice", "", 0.0)])
    second = await new_owner(store.log, 10)
    assert second > first


def snapshots(
    committer: Committer, sessions: Iterable[SessionState], size: int = 100
) -> Iterator[int]:
    """Put a snapshot of each session into the log, as of so many bytes."""
    for session in sessions:
        committer.add(session.snapshot())
        yield size


async def test_large_snapshots_are_commits_of_their_own(store: Store) -> None:
    """What else is to be committed does not wait for all of them."""
    async with writing(store, "1-a") as committer:
        checkpointer = Checkpointer(store, committer, Projector(store, "1-a"), 1)
        sessions = [SessionState(f"s{number}", "alice", "") for number in range(4)]
        for size, expected in ((SLICE_BYTES, 4), (SLICE_BYTES // 2, 2), (1, 1)):
            before = committer.commits
            await checkpointer.checkpoint(snapshots(committer, sessions, size))
            assert committer.commits - before == expected


async def test_a_checkpoint_lets_the_log_be_trimmed_and_loses_nothing(store: Store) -> None:
    async with writing(store, "1-a") as committer:
        for entry in A_LIFE:
            committer.add(entry)
            await committer.durable()
        state = await folded(store, "1-a")
        before = committer.seq
        checkpointer = Checkpointer(store, committer, Projector(store, "1-a"), 1)
        assert checkpointer.due()
        await checkpointer.checkpoint(snapshots(committer, state.sessions.values()))
        committer.add(finished(2))
        await committer.durable()
    kept = [commit.seq async for commit in store.log.read("1-a", 0)]
    assert kept
    assert min(kept) > before
    [session] = await recovered(store, "2-b")
    assert [(n, outcome) for n, outcome, _, _ in summary(session)] == [
        (1, "done"),
        (2, "done"),
        (3, None),
    ]


async def test_the_request_log_is_built_from_the_log(store: Store) -> None:
    await write(store, "1-a", A_LIFE)
    await project(store, "1-a")
    rows = {row.n: row for row in await store.history.find(session="s")}
    assert {n: row.state for n, row in rows.items()} == {1: "done", 2: "running", 3: "waiting"}
    assert (rows[1].id, rows[1].method, rows[1].subject) == ("id1", "echo", "alice")
    assert (rows[1].accepted_at, rows[1].started_at, rows[1].finished_at) == (1.0, 1.5, 2.0)


async def test_the_request_log_can_be_built_in_parts(store: Store) -> None:
    async with writing(store, "1-a") as committer:
        for entry in [*A_LIFE, finished(2), Acked("s", [1], 0, 0), Claimed("0-x")]:
            committer.add(entry)
            await committer.durable()
            await project(store, "1-a")
    rows = {row.n: row.state for row in await store.history.find(session="s")}
    assert rows == {1: "done", 2: "done", 3: "waiting"}
