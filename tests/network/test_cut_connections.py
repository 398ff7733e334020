"""A connection that is cut at any byte, in either direction, loses nothing and repeats nothing.

A scripted exchange (handshake, hello, requests, results, acks, bye) goes through a proxy that cuts
it after so many bytes, with a FIN or a RST. A fresh connection then resumes. Every 7th byte is
tried, every one of them with --every-byte.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from protocol.client import connect
from tests.network.conftest import chosen, unharmed
from tests.network.proxy import PLAIN, Cut, Direction, Proxy, cuts
from tests.network.spec_client import SpecClient
from tests.raw import online
from tests.server_process import ServerProcess, token, unique

AT_A_TIME = 40
STEP = 7

Exchange = Callable[[int, Proxy], Awaitable[None]]
"""Run the exchange against the server at this port, once through the proxy."""


def requests() -> list[dict[str, Any]]:
    key = unique()
    return [
        {"id": "a", "method": "tally", "params": {"key": f"{key}a"}},
        {"id": "b", "method": "count_to", "params": {"key": f"{key}b", "limit": 3}},
        {"id": "c", "method": "tally", "params": {"key": f"{key}c"}},
    ]


RESULTS = {"a": [1], "b": [1, 2, 3], "c": [1]}


async def by_the_spec(port: int, proxy: Proxy) -> None:
    """The first connection may be cut."""
    client = SpecClient(requests())
    if not await client.visit(proxy.port):
        assert await client.visit(port)
    assert client.results == RESULTS
    assert client.ended == ["a", "b", "c"]


async def resuming_by_the_spec(port: int, proxy: Proxy) -> None:
    """The second connection may be cut, while it resumes."""
    client = SpecClient(requests())
    await client.visit(port, leave_unacknowledged=True)
    assert client.results == RESULTS
    again = client.forgetful()
    if not await again.visit(proxy.port):
        assert await again.visit(port)
    assert again.results == RESULTS
    assert again.ended == ["a", "b", "c"]


async def by_our_client(port: int, proxy: Proxy) -> None:
    """Our client's first connection may be cut; it resumes by itself."""
    async with connect(proxy.url, token=token("ours")) as session:
        handles = [session.submit(one["method"], one["params"]) for one in requests()]
        found = [[result async for result in handle] for handle in handles]
    assert found == list(RESULTS.values())
    # Where the cut took its `bye`, the session waits for a client to come back.
    async with online(f"ws://127.0.0.1:{port}/ws", token=token("ours"), session=session.id) as end:
        await end.send({"type": "bye"})
        assert (await end.closed())[0] == 1000


async def lengths(server: ServerProcess, exchange: Exchange) -> dict[Direction, int]:
    """Return how many bytes the exchange takes when nothing is cut."""
    async with Proxy(server.port, PLAIN) as proxy:
        await exchange(server.port, proxy)
        return proxy.passed


async def run_cut(server: ServerProcess, exchange: Exchange, cut: Cut) -> None:
    async with Proxy(server.port, cut) as proxy:
        try:
            await exchange(server.port, proxy)
        except BaseException as error:
            error.add_note(f"{exchange.__name__}, {cut}")
            raise


@pytest.mark.timeout(900)
@pytest.mark.parametrize("exchange", [by_the_spec, resuming_by_the_spec, by_our_client])
async def test_a_connection_cut_at_any_byte_loses_and_repeats_nothing(
    server: ServerProcess, exchange: Exchange, pytestconfig: pytest.Config
) -> None:
    step = 1 if chosen(pytestconfig, "--every-byte") else STEP
    at_a_time = asyncio.Semaphore(AT_A_TIME)

    async def one(cut: Cut) -> None:
        async with at_a_time:
            await run_cut(server, exchange, cut)

    planned = cuts(await lengths(server, exchange), step)
    async with unharmed(server), asyncio.TaskGroup() as group:
        for cut in planned:
            group.create_task(one(cut))
