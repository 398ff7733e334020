"""What is over is gone at once, without waiting for the garbage collector."""

import asyncio
from pathlib import Path

from scripts.fuzzing.handlers import WATCHED
from tests.raw import RawClient, online, raw
from tests.server_process import ServerProcess, token


async def look(client: RawClient) -> dict[str, int]:
    """Return what objects there are in the server, in use or not."""
    await client.request(f"look-{asyncio.get_running_loop().time()}", "look")
    found = (await client.next("result"))["data"]
    return {name: found[name] for name in WATCHED}


async def come_and_go(url: str) -> None:
    """Leave in every way there is."""
    async with online(url, token=token("bob")) as client:
        await client.request("a", "echo", params={"text": "x"})
        await client.next("done", "a")
        await client.send({"type": "bye"})
        await client.closed()
    async with raw(url) as client:
        await client.send({"type": "hello", "token": "x"})
        await client.closed()
    async with online(url, token=token("bob")) as client:
        await client.send({"type": "refresh", "token": "x"})
        await client.closed()
    async with online(url, token=token("bob")) as client:
        client.socket.transport.abort()
    async with raw(url) as client:
        client.socket.transport.abort()


async def test_connections_and_sessions_that_are_over_leave_nothing(tmp_path: Path) -> None:
    handlers = "scripts.fuzzing.handlers:handlers"
    server = ServerProcess(tmp_path, handlers=handlers, session_ttl=0.1)
    await server.astart()
    try:
        async with online(server.url, token=token(scope="look")) as client:
            before = await look(client)
            for _ in range(10):
                await come_and_go(server.url)
            left = await look(client)
            async with asyncio.timeout(30):
                while left != before:  # the last sessions have yet to expire
                    await asyncio.sleep(0.1)
                    left = await look(client)
    finally:
        await asyncio.to_thread(server.close)
