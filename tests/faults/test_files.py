"""No further files can be opened: those who are connected notice nothing."""

import asyncio
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from tests.faults.server import POLL_SECONDS, FaultyServer
from tests.raw import RawClient, online, raw


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultyServer]:
    server = FaultyServer(tmp_path)
    yield server
    server.close()


def open_files(server: FaultyServer) -> int:
    assert server.process is not None
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))  # noqa: PTH208 - only to count


def flood(server: FaultyServer, count: int) -> list[socket.socket]:
    """Connect so many times without saying anything."""
    return [socket.create_connection(("127.0.0.1", server.port)) for _ in range(count)]


def is_cut_off(client: socket.socket) -> bool:
    """Wait until there is something to be read; tell whether it is the end."""
    with suppress(ConnectionResetError):
        return client.recv(1) == b""
    return True


async def work(client: RawClient, name: str) -> None:
    """Have a request done that makes the journal grow."""
    await client.request(name, params={"text": "x" * 20_000})
    await client.next("done", name)


async def test_who_is_connected_works_on_when_no_file_is_left(server: FaultyServer) -> None:
    """And who is one too many is cut off at once, instead of waiting in the backlog."""
    await server.astart()
    assert server.process is not None
    async with online(server.url) as client:
        spare = 20
        limit = open_files(server) + spare
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (limit, limit))
        clients = flood(server, spare + 50)
        try:
            for refused in clients[spare:]:
                assert await asyncio.to_thread(is_cut_off, refused)
            assert open_files(server) == limit
            for number in range(20):
                await work(client, str(number))
        finally:
            for each in clients:
                each.close()
        while open_files(server) == limit:
            await asyncio.sleep(POLL_SECONDS)
        async with raw(server.url) as another:
            await another.hello()


async def test_a_low_limit_is_raised_so_that_all_connections_fit(tmp_path: Path) -> None:
    server = FaultyServer(tmp_path, behind="ulimit -S -n 64", max_connections=2000)
    try:
        await server.astart()
        assert server.process is not None
        soft, _ = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        assert soft > 2000
        assert not server.lines("open_files_capped")
    finally:
        server.close()


async def test_where_the_limit_cannot_be_raised_connections_are_refused_in_time(
    tmp_path: Path,
) -> None:
    server = FaultyServer(tmp_path, behind="ulimit -n 80", max_connections=2000)
    try:
        await server.astart()
        (line,) = server.lines("open_files_capped")
        assert (line["limit"], line["connections"]) == (80, 40)
        async with AsyncExitStack() as stack:
            for _ in range(40):
                await stack.enter_async_context(online(server.url))
            async with raw(server.url) as one_too_many:
                code, reason = await one_too_many.closed()
                assert (code, reason) == (1013, "overloaded: too many connections: come back later")
    finally:
        server.close()
