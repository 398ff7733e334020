"""What an append that returned is worth when a process is killed, and what it says of an outage."""

import asyncio
import sys
from pathlib import Path

import pytest

from server.journal.log import Commit, Unavailable
from server.journal.store import Store
from tests.contract.backends import Backend, append_many, commits
from tests.contract.writer import OWNER, data
from tests.mongo import MongoDaemon

ROOT = Path(__file__).parents[2]

# PyMongo leaves a socket to the garbage collector when its monitor is stopped while connecting.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.mark.parametrize("lines", [1, 40, 150])
async def test_what_was_appended_survives_the_kill_of_the_writer(
    backend: Backend, lines: int
) -> None:
    writer = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.contract.writer",
        backend.kind,
        backend.url,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert writer.stdout is not None
    for _ in range(lines):
        assert await writer.stdout.readline()
    writer.kill()
    rest, _ = await writer.communicate()
    appended = lines + rest.count(b"\n")
    log = (await backend.open()).log
    found = await commits(log, OWNER)
    assert len(found) in {appended, appended + 1}  # the last one may not have been printed
    assert found == [Commit(seq, data(seq)) for seq in range(1, len(found) + 1)]
    await log.append(OWNER, len(found) + 1, b"the log goes on")


async def test_what_was_appended_survives_the_kill_of_the_database(
    killable: Backend, daemon: MongoDaemon
) -> None:
    store = await killable.open()
    for round_ in range(1, 4):
        seq = 2 * round_ - 1
        await store.log.append("a", seq, b"%d" % seq)
        await store.log.append("a", seq + 1, b"x" * (16 * 1024 * 1024))
        await daemon.restart()
        store = await killable.reopen(store)
        assert [commit.seq for commit in await commits(store.log, "a")] == [*range(1, seq + 2)]
        assert len((await commits(store.log, "a"))[-1].data) == 16 * 1024 * 1024


async def test_an_append_during_an_outage_succeeds_when_it_is_over(
    killable: Backend, daemon: MongoDaemon
) -> None:
    """The very same append, on the same store: nobody has to reconnect."""
    store = await killable.open()
    await append_many(store.log, "a", 2)
    daemon.kill()
    async with asyncio.timeout(10):
        with pytest.raises(Unavailable, match="MongoDB"):
            await store.log.append("a", 3, b"commit 3")
    await daemon.astart()
    await store.log.append("a", 3, b"commit 3")
    await append_many(store.log, "a", 4)
    assert await commits(store.log, "a") == [Commit(n, b"commit %d" % n) for n in range(1, 5)]


async def test_appends_under_way_when_the_database_dies_are_repeated_without_harm(
    killable: Backend, daemon: MongoDaemon
) -> None:
    """Their outcome is unknown: the same append again finds out."""
    store = await killable.open()
    for outage in range(3):
        owner = f"owner {outage}"
        half_way = asyncio.Event()
        appending = asyncio.create_task(_append_through_outages(store, owner, 100, half_way))
        await half_way.wait()
        await daemon.restart()
        await appending
        assert await commits(store.log, owner) == [
            Commit(n, b"commit %d" % n) for n in range(1, 101)
        ]


async def _append_through_outages(
    store: Store, owner: str, last: int, half_way: asyncio.Event
) -> None:
    for seq in range(1, last + 1):
        if seq == last // 2:
            half_way.set()
        while True:
            try:
                await store.log.append(owner, seq, b"commit %d" % seq)
            except Unavailable:
                continue
            else:
                break


async def test_everything_is_unavailable_without_the_database(
    killable: Backend, daemon: MongoDaemon
) -> None:
    store = await killable.open()
    daemon.kill()
    calls = [
        store.log.append("a", 1, b"one"),
        commits(store.log, "a"),
        store.log.owners(),
        store.log.seal("a", "b"),
        store.log.trim("a", 1),
        store.log.forget("a"),
        store.users.get("alice"),
        store.history.find(),
    ]
    async with asyncio.timeout(20):
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * len(calls)


async def test_opening_without_the_database_is_unavailable(
    killable: Backend, daemon: MongoDaemon
) -> None:
    daemon.kill()
    with pytest.raises(Unavailable):
        await killable.open()
