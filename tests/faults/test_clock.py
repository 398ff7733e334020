"""Somebody sets the clock: nothing is lost, nothing expires early, and order is order."""

import asyncio
import time

import pytest

from tests.faults.server import FaultyServer
from tests.faults.shim import Machine
from tests.raw import online, raw
from tests.server_process import token

HOUR = 3600


def token_at(offset: int) -> str:
    """Return a token from somebody whose clock is off by so much."""
    return token(now=time.time() + offset)


async def leave_a_result(server: FaultyServer, session: str | None = None, offset: int = 0) -> str:
    """Have one more request done, acknowledge nothing, and go; return the session."""
    async with raw(server.url) as client:
        welcome = await client.hello(session=session, token=token_at(offset))
        name = f"request{len(welcome['requests'])}"
        await client.request(name, params={"text": name})
        await client.next("done", name)
    return str(welcome["session"])


async def assert_kept(server: FaultyServer, session: str, offset: int, count: int) -> None:
    """Resume: all that was left is there, in the order in which it was asked for."""
    async with raw(server.url) as client:
        welcome = await client.hello(session=session, token=token_at(offset))
        assert welcome["resumed"]
        names = [f"request{number}" for number in range(count)]
        assert [(r["id"], r["n"]) for r in welcome["requests"]] == [
            (name, n) for n, name in enumerate(names, start=1)
        ]
        for name in names:
            assert (await client.next("result"))["data"] == name


async def until_looked_for_what_is_old(server: FaultyServer, machine: Machine, hours: int) -> None:
    """Set the clock forward, and wait until the server has looked for what has expired by it.

    Tokens do go by the clock, and are looked at in the same turn.
    """
    async with online(server.url) as witness:
        machine.set(clock_seconds=hours * HOUR)
        assert (await witness.closed())[0] == 4401


@pytest.mark.parametrize("hours", [2, 25, 24 * 365])
async def test_a_clock_set_forward_expires_neither_sessions_nor_results(
    server: FaultyServer, machine: Machine, hours: int
) -> None:
    session = await leave_a_result(server)
    await until_looked_for_what_is_old(server, machine, hours)
    await leave_a_result(server, session, hours * HOUR)
    await assert_kept(server, session, hours * HOUR, 2)


async def test_a_clock_that_was_ahead_and_is_set_right_expires_nothing(
    server: FaultyServer, machine: Machine
) -> None:
    await asyncio.to_thread(server.kill)
    machine.set(clock_seconds=25 * HOUR)
    await server.astart()
    session = await leave_a_result(server, offset=25 * HOUR)
    machine.set(clock_seconds=0)
    await leave_a_result(server, session)
    await until_looked_for_what_is_old(server, machine, 2)
    await assert_kept(server, session, 2 * HOUR, 2)


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_restart_under_another_clock_takes_over_what_is_there(
    server: FaultyServer, machine: Machine, hours: int
) -> None:
    """The newest log is the newest whatever the clock said when it was begun."""
    session = await leave_a_result(server)
    for offset in (hours * HOUR, 0):
        await asyncio.to_thread(server.kill)
        machine.set(clock_seconds=offset)
        await server.astart()
        await leave_a_result(server, session, offset)
    await assert_kept(server, session, 0, 3)
