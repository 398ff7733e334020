"""Fencing: whoever writes a log's next seq first wins, its owner or who takes it over."""

import asyncio

import pytest

from server.journal.log import Commit, Log, LogInfo, Sealed
from server.journal.store import Store
from tests.contract.backends import Backend, append_many, commits, seqs


async def test_a_sealed_log_cannot_be_appended_to(log: Log) -> None:
    await append_many(log, "a", 3)
    await log.seal("a", "b")
    with pytest.raises(Sealed):
        await log.append("a", 4, b"four")
    assert await seqs(log, "a") == [1, 2, 3]


async def test_the_owner_in_another_process_finds_the_seal(backend: Backend, store: Store) -> None:
    owners_store = await backend.another(store)
    await append_many(owners_store.log, "a", 3)
    await store.log.seal("a", "b")
    with pytest.raises(Sealed):
        await owners_store.log.append("a", 4, b"four")


async def test_commits_before_the_seal_may_still_be_repeated(log: Log) -> None:
    """An owner must learn that its last commit came through, though it is its last."""
    await append_many(log, "a", 3)
    await log.seal("a", "b")
    await log.append("a", 3, b"commit 3")


async def test_who_sealed_is_reported(backend: Backend, store: Store) -> None:
    await append_many(store.log, "a", 3)
    assert await store.log.seal("a", "b") == "b"
    store = await backend.reopen(store)
    assert await store.log.owners() == [LogInfo("a", 0, "b")]


async def test_sealing_twice_tells_the_first_winner(backend: Backend, store: Store) -> None:
    await append_many(store.log, "a", 3)
    await store.log.seal("a", "b")
    assert await store.log.seal("a", "c") == "b"
    store = await backend.reopen(store)
    assert await store.log.seal("a", "c") == "b"
    assert await store.log.owners() == [LogInfo("a", 0, "b")]


async def test_a_log_without_commits_can_be_sealed(log: Log) -> None:
    assert await log.seal("a", "b") == "b"
    with pytest.raises(Sealed):
        await log.append("a", 1, b"one")
    assert await log.owners() == [LogInfo("a", 0, "b")]


async def test_a_log_trimmed_to_nothing_can_be_sealed(backend: Backend, store: Store) -> None:
    await append_many(store.log, "a", 3)
    await store.log.trim("a", 3)
    sealing = await backend.another(store)
    assert await sealing.log.seal("a", "b") == "b"
    assert await sealing.log.owners() == [LogInfo("a", 3, "b")]
    with pytest.raises(Sealed):
        await store.log.append("a", 4, b"four")


async def test_trimming_spares_the_seal(log: Log) -> None:
    await append_many(log, "a", 3)
    await log.seal("a", "b")
    await log.trim("a", 99)
    assert await log.owners() == [LogInfo("a", 3, "b")]
    with pytest.raises(Sealed):
        await log.append("a", 4, b"four")


async def test_of_two_recoveries_one_wins_and_both_know(backend: Backend, store: Store) -> None:
    other = await backend.another(store)
    for round_ in range(20):
        owner = f"owner {round_}"
        await append_many(store.log, owner, 2)
        told = await asyncio.gather(store.log.seal(owner, "b"), other.log.seal(owner, "c"))
        info = (await store.log.owners())[0]
        assert told == [info.sealed_by] * 2
        assert await seqs(other.log, owner) == [1, 2]
        await store.log.forget(owner)


async def test_an_append_that_races_a_seal_is_in_the_log_or_sealed(
    backend: Backend, store: Store
) -> None:
    sealing = await backend.another(store)
    for round_ in range(20):
        owner = f"owner {round_}"
        appended: list[Commit] = []
        begun = asyncio.Event()
        appending = asyncio.create_task(
            _append_until_sealed(store.log, owner, appended, begun, round_ % 5)
        )
        await begun.wait()
        assert await sealing.log.seal(owner, "b") == "b"
        with pytest.raises(Sealed):
            await appending
        assert await commits(sealing.log, owner) == appended


async def _append_until_sealed(
    log: Log, owner: str, appended: list[Commit], begun: asyncio.Event, begun_at: int
) -> None:
    for seq in range(1, 500):
        if len(appended) == begun_at:
            begun.set()
        commit = Commit(seq, b"commit %d" % seq)
        await log.append(owner, commit.seq, commit.data)
        appended.append(commit)


async def test_the_owner_of_a_forgotten_log_cannot_append(backend: Backend, store: Store) -> None:
    """A process that was paused while its log was taken over must not write into nowhere."""
    owners_store = await backend.another(store)
    await append_many(owners_store.log, "a", 3)
    await store.log.seal("a", "b")
    await store.log.forget("a")
    with pytest.raises(Sealed):
        await owners_store.log.append("a", 4, b"four")
    assert await store.log.owners() == []
