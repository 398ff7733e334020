"""What only MongoDB has to get right: several processes on one log, documents of limited size."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from server.journal import mongodb_log
from server.journal.buckets import Row, pack_finished, pack_unfinished
from server.journal.log import Commit, JournalError, Sealed
from server.journal.mongodb import MongodbStore
from server.journal.mongodb_log import MongodbLog
from server.journal.mongodb_tables import MongodbHistory
from server.journal.store import Store
from tests.contract.backends import MONGODB_KINDS, Backend, append_many, commits, seqs


@pytest.fixture(params=MONGODB_KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def database(store: Store) -> Any:
    """Return the database under `store`, to look at and to damage."""
    assert isinstance(store, MongodbStore)
    return store._client.get_default_database()


async def test_a_fence_where_a_commit_was_trimmed_does_not_count(
    backend: Backend, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever seals may have looked before a living owner appended and trimmed a great deal."""
    other = await backend.another(store)
    await append_many(store.log, "a", 100)
    await store.log.trim("a", 90)
    now = MongodbLog._last_seq
    looks = iter([5])

    async def last_seq(log: MongodbLog, owner: str) -> int:
        return next(looks, None) or await now(log, owner)

    assert await other.log.seal("b", "c") == "c"  # so that only the fencing of "a" looks too early
    monkeypatch.setattr(MongodbLog, "_last_seq", last_seq)
    monkeypatch.setattr(MongodbLog, "_register", now)
    assert await other.log.seal("a", "b") == "b"
    monkeypatch.undo()
    with pytest.raises(Sealed):
        await store.log.append("a", 101, b"commit 101")
    assert await seqs(store.log, "a") == list(range(91, 101))


async def test_parts_of_an_append_that_never_came_through_are_no_commit(store: Store) -> None:
    big = b"x" * (16 * 1024 * 1024)
    await append_many(store.log, "a", 1)
    _, parts = mongodb_log._documents("a", 2, big)
    await database(store).parts.insert_many(parts)
    assert await seqs(store.log, "a") == [1]
    await store.log.append("a", 2, big)
    assert await commits(store.log, "a", after=1) == [Commit(2, big)]


async def test_a_commit_without_its_parts_is_an_error(store: Store) -> None:
    await store.log.append("a", 1, b"x" * (16 * 1024 * 1024))
    await database(store).parts.delete_many({})
    with pytest.raises(JournalError, match="lacks parts of a/0000000000000001"):
        await commits(store.log, "a")


async def test_trimming_and_forgetting_leave_no_parts(store: Store) -> None:
    for seq in (1, 2, 3):
        await store.log.append("a", seq, b"x" * (16 * 1024 * 1024))
    await store.log.trim("a", 2, spare=[1])
    assert await database(store).parts.count_documents({}) == 2
    await store.log.seal("a", "b")
    await store.log.forget("a")
    assert await database(store).parts.count_documents({}) == 0


async def test_fences_of_logs_forgotten_long_ago_are_deleted(store: Store) -> None:
    for owner in ("a", "b"):
        await append_many(store.log, owner, 2)
        await store.log.seal(owner, "c")
    await store.log.forget("a")
    long_ago = datetime.now(UTC) - mongodb_log.FENCES_KEPT - timedelta(hours=1)
    await database(store).owners.update_one({"_id": "a"}, {"$set": {"forgotten_at": long_ago}})
    await store.log.forget("b")
    for name in ("log", "seals", "owners"):
        left = {doc["_id"].partition("/")[0] async for doc in database(store)[name].find()}
        assert left == {"b"}


async def test_buckets_are_removed_some_time_after_their_last_request_finished(
    backend: Backend,
) -> None:
    store = await backend.open(history_ttl_seconds=3600)
    rows: list[Row] = [
        (n, "x", "echo", "done", 1, 1, 1.0, 1.0, finished_at)
        for n, finished_at in ((1, 4e9), (2, 5.0))
    ]
    left: Row = (3, "y", "echo", "waiting", 0, None, 1.0, None, None)
    await store.history.project(
        "a", 1, pack_finished("s", "alice", rows), [pack_unfinished("s", "alice", [left], "")]
    )
    [bucket] = [document async for document in database(store).buckets.find()]
    assert bucket["expires_at"].timestamp() == 4e9 + 3600
    indexes = await database(store).buckets.index_information()
    assert indexes["expires_at_1"]["expireAfterSeconds"] == 0
    [unfinished] = [document async for document in database(store).unfinished.find()]
    assert "expires_at" not in unfinished


async def test_requests_can_be_read_from_what_a_shell_shows(store: Store) -> None:
    row: Row = (7, 'it\'s "x"', "echo", "timeout", 1, 0, 1.5, 2.5, 4e9)
    await store.history.project("a", 1, pack_finished("s", "alice", [row]), [])
    document = await database(store).buckets.find_one({"session": "s", "states": "timeout"})
    assert document["_id"] == "s/0000000000000007"
    assert json.loads(document["packed"]) == [list(row)]


async def test_a_database_of_the_first_version_is_refused(backend: Backend, store: Store) -> None:
    await append_many(store.log, "a", 1)
    await database(store).schema.delete_many({})
    with pytest.raises(JournalError, match="made by another version"):
        await backend.open()


async def test_a_database_of_a_newer_version_is_refused(backend: Backend, store: Store) -> None:
    await database(store).schema.update_one({"_id": "version"}, {"$set": {"number": 99}})
    with pytest.raises(JournalError, match="schema 99"):
        await backend.open(log=False)


async def test_writes_and_reads_ask_for_a_majority(store: Store) -> None:
    assert isinstance(store, MongodbStore)
    log = store.log
    assert isinstance(log, MongodbLog)
    history = store.history
    assert isinstance(history, MongodbHistory)
    collections = (log._log, log._parts, log._seals, log._owners, store.users._users)
    for collection in (*collections, history._buckets, history._unfinished):
        assert collection.write_concern.document == {"w": "majority", "j": True, "wtimeout": 10000}
        assert collection.read_concern.level == "majority"
