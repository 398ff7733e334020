"""Links that are slow, that split and join what is sent, that lose and reorder packets.

Everything arrives, in order and once.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from protocol.client import connect
from tests.network.cable import Cable
from tests.network.conftest import HANDLERS, ServerAt, chosen, unharmed
from tests.network.proxy import Proxy, Shape
from tests.network.spec_client import SpecClient
from tests.server_process import ServerProcess, token, unique


async def many_by_our_client(url: str, count: int, size: int = 0) -> None:
    """Run `count` requests of two kinds, with results of `size` more bytes."""
    key = unique()
    async with connect(url, token=token("ours")) as session:
        tallies = [session.request("tally", key=f"{key}{n}") for n in range(count)]
        streams = [session.request("pour", key=key, count=3, size=size) for _ in range(count)]
        assert [await tally for tally in tallies] == [1] * count
        for stream in streams:
            assert [result async for result in stream] == ["x" * size] * 3
        assert await session.request("poured", key=key) == 3 * count


def some_by_the_spec(count: int) -> SpecClient:
    key = unique()
    return SpecClient(
        [
            {"id": f"{n}", "method": "count_to", "params": {"key": f"{key}{n}", "limit": 3}}
            for n in range(count)
        ]
    )


@pytest.mark.parametrize(
    "shape",
    [
        Shape(piece_bytes=1),
        Shape(piece_bytes=7, delay_seconds=0.01),
        Shape(delay_seconds=0.1),
        Shape(piece_bytes=1000, bytes_per_second=200_000),
    ],
    ids=["byte by byte", "in crumbs", "late and joined", "slow"],
)
async def test_the_form_in_which_bytes_arrive_does_not_matter(
    server: ServerProcess, shape: Shape
) -> None:
    client = some_by_the_spec(20)
    async with unharmed(server), Proxy(server.port, shape, shape) as proxy:
        await asyncio.gather(client.visit(proxy.port), many_by_our_client(proxy.url, 20))
    assert client.over
    assert client.ended == [f"{n}" for n in range(20)]
    assert list(client.results.values()) == [[1, 2, 3]] * 20


async def test_results_that_take_long_to_arrive_are_complete(server: ServerProcess) -> None:
    """Backpressure, not the disconnection of a slow consumer."""
    slow = Shape(bytes_per_second=1_000_000)
    async with Proxy(server.port, slow) as proxy:
        await many_by_our_client(proxy.url, 20, size=10_000)
    assert "slow_consumer" not in server.log.read_text()


@pytest.mark.timeout(300)
async def test_a_link_that_delays_loses_and_reorders_packets(
    cable: Cable, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """200 ms for a round trip, up to 100 ms more by which packets overtake; one in ten is lost."""
    clients, count = (8, 200) if chosen(pytestconfig, "--patient") else (3, 20)
    server = ServerAt(tmp_path, cable.near, handlers=HANDLERS)
    await server.astart()
    cable.loss, cable.delay_seconds, cable.jitter_seconds = 0.1, 0.1, 0.05
    by_the_spec = [some_by_the_spec(20) for _ in range(clients)]

    async def all_at_once() -> None:
        spec: list[Any] = [one.visit(server.port, server.host) for one in by_the_spec]
        ours = [many_by_our_client(server.url, count, size=2000) for _ in range(clients)]
        await asyncio.gather(*spec, *ours)

    try:
        async with unharmed(server):
            await cable.run_far(all_at_once())
    finally:
        server.close()
    assert all(one.over for one in by_the_spec)
    assert all(list(one.results.values()) == [[1, 2, 3]] * 20 for one in by_the_spec)
