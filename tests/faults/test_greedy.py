"""Handlers that take what is not theirs: memory, the event loop."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.server import POLL_SECONDS, FaultyServer
from tests.raw import online

MEMORY_MIB = 2048
"""So much address space a server here may have: it needs about 700 MiB, mostly for threads."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultyServer]:
    server = FaultyServer(tmp_path, behind=f"ulimit -v {MEMORY_MIB * 1024}")
    server.start()
    yield server
    server.close()


async def test_a_handler_without_memory_ends_its_own_request_only(server: FaultyServer) -> None:
    async with online(server.url) as client, online(server.url) as another:
        await client.request("greedy", "hog", params={"mebibytes": 2 * MEMORY_MIB})
        await client.request("modest", params={"text": "x"})
        assert (await client.next("error", "greedy"))["code"] == "handler_error"
        await client.next("done", "modest")
        await another.request("1", params={"text": "x"})
        await another.next("done", "1")
        (line,) = server.lines("handler_failed")
        assert line["exception"].endswith("MemoryError")


async def test_a_handler_that_blocks_the_loop_delays_others_and_costs_them_nothing(
    server: FaultyServer,
) -> None:
    gate = server.directory / "gate"
    blocked = server.directory / "blocked"
    async with online(server.url) as client, online(server.url) as another:
        params = {"path": str(blocked), "gate": str(gate)}
        await client.request("blocks", "block", params=params)
        while not blocked.exists():
            await asyncio.sleep(POLL_SECONDS)
        for number in range(10):
            await another.request(str(number), params={"text": "x"})
        gate.touch()
        await another.all_of(*(("done", str(number)) for number in range(10)))
        await client.next("done", "blocks")
