"""What every log does while nothing goes wrong."""

import asyncio

import pytest

from server.journal import mongodb_log, sqlite_log
from server.journal.log import Commit, JournalError, Log, LogInfo, Sealed
from server.journal.store import Store
from tests.contract.backends import Backend, append_many, commits, seqs


async def test_commits_are_read_back_in_order(log: Log) -> None:
    await append_many(log, "a", 12)
    assert await commits(log, "a") == [Commit(n, b"commit %d" % n) for n in range(1, 13)]


async def test_commits_are_there_after_reopening(backend: Backend, store: Store) -> None:
    await append_many(store.log, "a", 3)
    store = await backend.reopen(store)
    assert await seqs(store.log, "a") == [1, 2, 3]


async def test_an_owner_goes_on_after_reopening(backend: Backend, store: Store) -> None:
    await append_many(store.log, "a", 3)
    store = await backend.reopen(store)
    await store.log.append("a", 4, b"four")
    assert await seqs(store.log, "a") == [1, 2, 3, 4]


async def test_reading_starts_after_the_given_seq(log: Log) -> None:
    await append_many(log, "a", 5)
    assert await seqs(log, "a", after=3) == [4, 5]


async def test_more_commits_than_fit_a_batch_are_read_in_order(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_log, "READ_ROWS", 7)
    monkeypatch.setattr(mongodb_log, "READ_DOCUMENTS", 7)
    await append_many(log, "a", 50)
    assert await seqs(log, "a") == list(range(1, 51))


async def test_reading_may_stop_early(log: Log) -> None:
    await append_many(log, "a", 3)
    reading = log.read("a", 0)
    assert (await anext(reading)).seq == 1
    await reading.aclose()  # type: ignore[attr-defined]
    await log.append("a", 4, b"four")


async def test_an_unknown_log_reads_empty(log: Log) -> None:
    assert await commits(log, "nobody") == []


async def test_logs_do_not_mix(log: Log) -> None:
    """Not even those whose names begin alike."""
    for owner in ("a", "ab", "a-b", "a0", "b"):
        await log.append(owner, 1, owner.encode())
    for owner in ("a", "ab", "a-b", "a0", "b"):
        assert await commits(log, owner) == [Commit(1, owner.encode())]


async def test_an_empty_commit_is_a_commit(log: Log) -> None:
    await log.append("a", 1, b"")
    assert await commits(log, "a") == [Commit(1, b"")]


async def test_a_commit_of_20_megabytes_round_trips(log: Log) -> None:
    big = bytes(range(256)) * (20 * 1024 * 4)
    await log.append("a", 1, b"small")
    await log.append("a", 2, big)
    await log.append("a", 3, b"small")
    assert await commits(log, "a") == [Commit(1, b"small"), Commit(2, big), Commit(3, b"small")]


async def test_an_append_repeated_with_the_same_data_succeeds_once(log: Log) -> None:
    await log.append("a", 1, b"one")
    await log.append("a", 1, b"one")
    await log.append("a", 2, b"two")
    assert await seqs(log, "a") == [1, 2]


async def test_a_repeated_append_succeeds_after_reopening(backend: Backend, store: Store) -> None:
    """Where the first try was cut off by a crash, the next process may know nothing of it."""
    await append_many(store.log, "a", 2)
    store = await backend.reopen(store)
    await store.log.append("a", 2, b"commit 2")
    assert await seqs(store.log, "a") == [1, 2]


async def test_a_repeated_append_of_20_megabytes_succeeds_once(log: Log) -> None:
    big = b"x" * (20 * 1024 * 1024)
    await log.append("a", 1, big)
    await log.append("a", 1, big)
    assert await commits(log, "a") == [Commit(1, big)]


async def test_the_same_seq_with_other_data_is_sealed(log: Log) -> None:
    await log.append("a", 1, b"one")
    with pytest.raises(Sealed, match="something else"):
        await log.append("a", 1, b"other")
    assert await commits(log, "a") == [Commit(1, b"one")]


async def test_other_data_does_not_harm_a_big_commit(log: Log) -> None:
    big = b"x" * (16 * 1024 * 1024)
    await log.append("a", 1, big)
    with pytest.raises(Sealed):
        await log.append("a", 1, big[:-1] + b"y")
    assert await commits(log, "a") == [Commit(1, big)]


@pytest.mark.parametrize("seq", [0, 4])
async def test_a_gap_is_refused(log: Log, seq: int) -> None:
    await append_many(log, "a", 2)
    with pytest.raises(JournalError, match=f"commit {seq} of a does not follow"):
        await log.append("a", seq, b"")


@pytest.mark.parametrize("owner", ["", "a/b", "a\0", "x" * 129])
async def test_a_name_that_could_be_mistaken_is_refused(log: Log, owner: str) -> None:
    with pytest.raises(ValueError, match="not an owner's name"):
        await log.append(owner, 1, b"")


async def test_a_cancelled_append_can_be_repeated(log: Log) -> None:
    """Wherever the cancellation hits, and whether or not the write lands."""
    for seq in range(1, 21):
        appending = asyncio.create_task(log.append("a", seq, b"commit %d" % seq))
        for _ in range(seq - 1):
            await asyncio.sleep(0)
        appending.cancel()
        await asyncio.wait([appending])
        await log.append("a", seq, b"commit %d" % seq)
    assert await seqs(log, "a") == list(range(1, 21))


async def test_a_cancelled_append_is_over_when_the_store_is_closed(
    backend: Backend, store: Store
) -> None:
    appending = asyncio.create_task(store.log.append("a", 1, b"one"))
    await asyncio.sleep(0)
    appending.cancel()
    await asyncio.wait([appending])
    store = await backend.reopen(store)
    before = await seqs(store.log, "a")
    await asyncio.sleep(0)
    assert await seqs(store.log, "a") == before == [1]


async def test_owners_are_listed_by_name(log: Log) -> None:
    for owner in ("c", "a", "b"):
        await log.append(owner, 1, b"")
    assert await log.owners() == [LogInfo(owner, 0, None) for owner in ("a", "b", "c")]


async def test_a_log_without_commits_is_not_listed(log: Log) -> None:
    with pytest.raises(JournalError):
        await log.append("a", 2, b"")
    assert await log.owners() == []


async def test_trimmed_commits_are_gone(log: Log) -> None:
    await append_many(log, "a", 6)
    await log.trim("a", 4)
    assert await seqs(log, "a") == [5, 6]


async def test_trimming_spares_what_it_is_told_to(log: Log) -> None:
    await append_many(log, "a", 6)
    await log.trim("a", 4, spare={2, 4})
    assert await commits(log, "a") == [Commit(n, b"commit %d" % n) for n in (2, 4, 5, 6)]


async def test_what_was_spared_once_goes_when_it_is_not_spared_again(log: Log) -> None:
    await append_many(log, "a", 6)
    await log.trim("a", 4, spare={2, 3})
    await log.trim("a", 5, spare={3})
    assert await seqs(log, "a") == [3, 6]


async def test_trimming_takes_as_many_steps_as_it_needs(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_log, "DELETE_ROWS", 7)
    monkeypatch.setattr(mongodb_log, "SPARED_PER_DELETE", 7)
    await append_many(log, "a", 60)
    await log.trim("a", 50, spare=range(2, 41, 2))
    assert await seqs(log, "a") == [*range(2, 41, 2), *range(51, 61)]


async def test_trimming_steps_are_bounded_in_bytes(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that is larger than a step is a step of its own."""
    monkeypatch.setattr(sqlite_log, "DELETE_BYTES", 20)
    await append_many(log, "a", 12)
    await log.append("a", 13, b"x" * 100)
    await append_many(log, "b", 3)
    await log.trim("a", 13, spare=[5])
    assert await seqs(log, "a") == [5]
    assert await seqs(log, "b") == [1, 2, 3]


async def test_big_commits_are_trimmed_and_spared_whole(log: Log) -> None:
    big = b"x" * (16 * 1024 * 1024)
    for seq in (1, 2, 3):
        await log.append("a", seq, big)
    await log.trim("a", 2, spare=[2])
    assert await commits(log, "a") == [Commit(2, big), Commit(3, big)]


async def test_the_watermark_of_trimming_is_reported(backend: Backend, store: Store) -> None:
    await append_many(store.log, "a", 6)
    await store.log.trim("a", 4, spare={2})
    store = await backend.reopen(store)
    assert await store.log.owners() == [LogInfo("a", 4, None)]


async def test_the_watermark_never_goes_back(log: Log) -> None:
    await append_many(log, "a", 6)
    await log.trim("a", 4)
    await log.trim("a", 2)
    assert await log.owners() == [LogInfo("a", 4, None)]


async def test_trimming_stops_at_the_last_commit(backend: Backend, store: Store) -> None:
    """The log goes on where it was, though nothing is left of it."""
    await append_many(store.log, "a", 3)
    await store.log.trim("a", 99)
    store = await backend.reopen(store)
    assert await store.log.owners() == [LogInfo("a", 3, None)]
    await store.log.append("a", 4, b"four")
    assert await seqs(store.log, "a") == [4]


async def test_a_trimmed_commit_cannot_be_appended_again(log: Log) -> None:
    await append_many(log, "a", 3)
    await log.trim("a", 2)
    with pytest.raises(Sealed):
        await log.append("a", 2, b"commit 2")
    assert await seqs(log, "a") == [3]


async def test_a_forgotten_log_is_gone(backend: Backend, store: Store) -> None:
    await append_many(store.log, "a", 300)
    await append_many(store.log, "b", 2)
    await store.log.seal("a", "b")
    await store.log.forget("a")
    for _ in range(2):
        assert await store.log.owners() == [LogInfo("b", 0, None)]
        assert await seqs(store.log, "a") == []
        assert await seqs(store.log, "b") == [1, 2]
        store = await backend.reopen(store)


async def test_forgetting_what_is_not_there_is_no_error(log: Log) -> None:
    await log.forget("nobody")
    assert await log.owners() == []
