"""Commands of operators wait in the store until a server has carried them out."""

import pytest
from msgspec.structs import replace

from server.journal.store import CARRIED_OUT, PENDING, REFUSED, Command, Store
from tests.contract.backends import Backend

CANCEL = Command(id="1-a", kind="cancel", target="s:1", created_at=10.25)
CLOSE = Command(id="2-b", kind="close", target="s", created_at=20.5)


async def test_a_command_waits_until_it_is_settled(backend: Backend, store: Store) -> None:
    """It comes from another process, beside the server that has the log."""
    operator = await backend.open(log=False)
    for command in (CLOSE, CANCEL):
        await operator.commands.put(command)
    assert await store.commands.pending(10) == [CANCEL, CLOSE]
    assert await store.commands.pending(1) == [CANCEL]
    await store.commands.settle("1-a", REFUSED, "it has ended already: done")
    assert await store.commands.pending(10) == [CLOSE]
    settled = replace(CANCEL, status=REFUSED, outcome="it has ended already: done")
    assert await operator.commands.get("1-a") == settled
    assert await operator.commands.get("2-b") == CLOSE
    assert await operator.commands.get("3-c") is None


async def test_what_was_settled_stays_so(store: Store) -> None:
    await store.commands.put(CANCEL)
    await store.commands.settle("1-a", CARRIED_OUT, "cancelled")
    await store.commands.settle("1-a", REFUSED, "too late")
    settled = await store.commands.get("1-a")
    assert settled == replace(CANCEL, status=CARRIED_OUT, outcome="cancelled")


async def test_commands_are_there_after_reopening(backend: Backend, store: Store) -> None:
    await store.commands.put(CANCEL)
    store = await backend.reopen(store)
    [command] = await store.commands.pending(10)
    assert command.status == PENDING


@pytest.mark.parametrize("settled", [False, True])
async def test_old_commands_expire(store: Store, settled: bool) -> None:
    for command in (CANCEL, CLOSE):
        await store.commands.put(command)
    if settled:
        await store.commands.settle("1-a", CARRIED_OUT, "cancelled")
    await store.commands.expire(20.5)
    assert await store.commands.get("1-a") is None
    assert await store.commands.get("2-b") == CLOSE


@pytest.mark.parametrize("target", ["$where", "'; DROP TABLE commands; --", "世界 🌍:1"])
async def test_a_target_is_data_to_every_database(store: Store, target: str) -> None:
    await store.commands.put(replace(CANCEL, target=target))
    assert [command.target for command in await store.commands.pending(10)] == [target]
