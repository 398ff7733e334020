"""The power fails: what was promised is on the disk, whatever else of the page cache is lost."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.server import FaultyServer, Witness
from tests.faults.shim import Machine

SEED = 20261125
CHECKPOINTS = "PRAGMA wal_autocheckpoint = 24"
"""So that the power fails within checkpoints of SQLite, too."""


@pytest.fixture
def server(machine: Machine, tmp_path: Path) -> Iterator[FaultyServer]:
    server = FaultyServer(tmp_path, variables=machine.environment)
    yield server
    server.close()


async def run_until_power_fails(
    server: FaultyServer, machine: Machine, promises: int, dice: random.Random | None
) -> Witness:
    """Kill the server under load after so many promises; what was not durable is lost."""
    await server.astart()
    witness = Witness(server)
    asking = asyncio.create_task(witness.ask())
    await witness.promises(promises, promises // 2)
    await asyncio.to_thread(server.kill)
    await asking
    machine.lose_power(dice)
    return witness


@pytest.mark.parametrize("sectors", ["none", "some"])
async def test_what_was_promised_outlives_a_loss_of_power(
    server: FaultyServer, machine: Machine, sectors: str, request: pytest.FixtureRequest
) -> None:
    """Whether the disk had written none, or just some, of the sectors it was not told to."""
    dice = random.Random(SEED)  # noqa: S311 - not a secret
    server.variables["FAULTS_SQLITE"] = CHECKPOINTS
    for _ in range(request.config.getoption("power_losses", 2)):
        promises = dice.randint(1, 200)
        some = dice if sectors == "some" else None
        witness = await run_until_power_fails(server, machine, promises, some)
        await server.astart()
        await witness.check()
        await asyncio.to_thread(server.kill)
        machine.lose_power(some)


@pytest.mark.parametrize("synchronous", ["OFF", "NORMAL"])
async def test_these_tests_see_a_journal_that_is_not_synced(
    server: FaultyServer, machine: Machine, synchronous: str
) -> None:
    server.variables["FAULTS_SQLITE"] = f"PRAGMA synchronous = {synchronous}"
    witness = await run_until_power_fails(server, machine, 50, None)
    await server.astart()
    with pytest.raises(AssertionError, match="lost"):
        await witness.check()
