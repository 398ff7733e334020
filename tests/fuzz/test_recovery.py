"""Recovery from a log that is not what was written: all that it said, or a clear refusal."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import frames as wire
from scripts.fuzzing.mutation import mutate_bytes
from server.handlers import Handlers
from server.journal.entries import encode_commit
from server.journal.log import Commit, Damaged, LogInfo
from server.recovery import recover
from tests.raw import online
from tests.rules_bench import Bench
from tests.server_process import ServerProcess

OWNER = LogInfo("1-a", 0, "2-b")


class ReadLog:
    """The log of an owner that died."""

    def __init__(self, commits: Sequence[Commit]) -> None:
        self._commits = commits

    async def read(self, _owner: str, after: int) -> AsyncGenerator[Commit]:
        for commit in self._commits:
            if commit.seq > after:
                yield commit

    async def owners(self) -> list[LogInfo]:
        return [OWNER]


class NoCommitter:
    def add(self, _entry: Any) -> None:
        pass

    async def durable(self) -> None:
        pass


def recovered(commits: Sequence[Commit]) -> list[Any]:
    """Return what recovery makes of `commits`. Raises Damaged."""
    log: Any = ReadLog(commits)
    committer: Any = NoCommitter()
    states = asyncio.run(recover(log, committer, Handlers(), [OWNER]))
    return [state.snapshot() for state in states]


def written() -> list[Commit]:
    """Return the commits of a session that has done a little of everything."""
    bench = Bench()
    commits: list[Commit] = []

    def commit() -> None:
        bench.journal.cut()
        commits.append(Commit(len(commits) + 1, encode_commit(bench.journal.in_flight)))
        bench.journal.land()

    bench.connect()
    for number in range(4):
        bench.send(f"r{number}")
        commit()
    running = bench.start()
    bench.session.result(running, b"1")
    bench.say(wire.Cancel("r2"))
    commit()
    bench.session.finish(running, "done")
    commit()
    bench.say(wire.Ack(2))
    bench.send("r4")
    commit()
    bench.session.authorize("admin")
    commit()
    return commits


WRITTEN = written()
RECOVERED = recovered(WRITTEN)


def test_what_was_written_is_recovered() -> None:
    (session,) = RECOVERED
    assert [request.id for request in session.requests] == ["r0", "r1", "r3", "r4"]


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(WRITTEN) - 1), st.integers(0, 2**32))
def test_a_changed_commit_stops_recovery(at: int, seed: int) -> None:
    commits = list(WRITTEN)
    commits[at] = Commit(at + 1, mutate_bytes(commits[at].data, Random(seed)))
    if commits != WRITTEN:
        with pytest.raises(Damaged, match=f"commit {at + 1} of the log of 1-a"):
            recovered(commits)


@pytest.mark.parametrize("at", range(len(WRITTEN) - 1))
def test_a_missing_commit_stops_recovery(at: int) -> None:
    with pytest.raises(Damaged, match=f"commit {at + 1} of the log of 1-a: it is missing"):
        recovered(WRITTEN[:at] + WRITTEN[at + 1 :])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(WRITTEN), max_size=12))
def test_commits_in_any_order_are_recovered_or_called_damaged(chosen: list[Commit]) -> None:
    """Stores keep a commit beside its seq; here it is as if they mixed them up."""
    with suppress(Damaged):
        recovered([Commit(seq, commit.data) for seq, commit in enumerate(chosen, start=1)])


async def test_a_server_does_not_go_on_with_a_damaged_journal(own_server: ServerProcess) -> None:
    await own_server.astart()
    async with online(own_server.url) as client:
        await client.request("a", "endless")
        await client.next("accepted", "a")
        await asyncio.to_thread(own_server.kill)
    flip_a_bit(own_server.directory / "journal.db")
    await asyncio.to_thread(own_server.spawn)
    assert own_server.process is not None
    assert await asyncio.to_thread(own_server.process.wait, 60) == 1
    assert "a commit is damaged" in own_server.log.read_text()


def flip_a_bit(path: Path) -> None:
    """Change the longest commit in a SQLite journal."""
    with sqlite3.connect(path) as database:
        (key, data) = database.execute(
            "SELECT key, data FROM log ORDER BY length(data) DESC"
        ).fetchone()
        changed = data[:20] + bytes((data[20] ^ 1,)) + data[21:]
        database.execute("UPDATE log SET data = ? WHERE key = ?", (changed, key))
    database.close()
