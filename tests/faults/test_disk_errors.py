"""The disk fails, or hangs: what it did not keep is not promised, and it comes back by itself."""

import asyncio
import errno
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.faults.server import FaultyServer, Witness
from tests.faults.shim import Machine
from tests.raw import raw

HANGS_MS = 600_000
FAULTS = {
    "sync fails": {"sync_errno": errno.EIO},
    "write fails": {"write_errno": errno.EIO},
    "disk full": {"write_errno": errno.ENOSPC},
    "read-only": {"write_errno": errno.EROFS},
    "sync hangs": {"sync_delay_ms": HANGS_MS},
}


@pytest.fixture
def server(machine: Machine, tmp_path: Path) -> Iterator[FaultyServer]:
    variables = {"FAULTS_QUICK": "1", "FAULTS_SQLITE": "PRAGMA wal_autocheckpoint = 24"}
    server = FaultyServer(tmp_path, variables=machine.environment | variables)
    server.start()
    yield server
    server.close()


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_failing_disk_refuses_requests_until_it_works_again(
    server: FaultyServer, machine: Machine, fault: str
) -> None:
    async with raw(server.url) as client:
        await client.hello()
        machine.set(**FAULTS[fault])
        await client.request("waiting", params={"text": "x"})
        await server.until_readiness("journal_unavailable")
        await client.request("refused", params={"text": "x"})
        refused = await client.next("error", "refused")
        assert (refused["code"], refused["retryable"]) == ("journal_unavailable", True)
        machine.set(**dict.fromkeys(FAULTS[fault], 0))
        await client.all_of(("accepted", "waiting"), ("done", "waiting"))
        await server.until_readiness()


async def test_a_lock_that_another_program_holds_is_waited_for(server: FaultyServer) -> None:
    """Somebody looks at the journal with a tool of SQLite's."""
    async with raw(server.url) as client:
        await client.hello()
        with closing(sqlite3.connect(server.directory / "journal.db")) as database:
            database.execute("BEGIN IMMEDIATE")
            await client.request("waiting", params={"text": "x"})
            await server.until_readiness("journal_unavailable")
            database.execute("ROLLBACK")
        await client.all_of(("accepted", "waiting"), ("done", "waiting"))
        await server.until_readiness()


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_a_failing_disk_did_not_keep_was_not_promised(
    server: FaultyServer, machine: Machine, fault: str
) -> None:
    """It fails now and then under load, and then the power fails."""
    witness = Witness(server)
    asking = asyncio.create_task(witness.ask())
    for promises in (20, 40, 60):
        await witness.promises(promises)
        machine.set(**FAULTS[fault])
        await server.until_readiness("journal_unavailable")
        machine.set(**dict.fromkeys(FAULTS[fault], 0))
    await witness.promises(80, 70)
    await asyncio.to_thread(server.kill)
    await asking
    machine.lose_power()
    await server.astart()
    await witness.check()
