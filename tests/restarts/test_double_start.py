"""A server started a second time by mistake ends at once, and does not touch the first."""

import asyncio

from tests.raw import online
from tests.server_process import ServerProcess


async def test_a_second_server_on_the_same_port_leaves_the_first_its_journal(
    server: ServerProcess,
) -> None:
    await server.astart()
    second = ServerProcess(server.directory, server.journal, **server.settings)
    second.port = server.port
    second.log = server.directory / "second.log"
    second.spawn()
    assert second.process is not None
    assert await asyncio.to_thread(second.process.wait, 30) == 1
    problem = f"cannot listen on 127.0.0.1:{server.port}: Address already in use"
    assert problem in second.log.read_text()
    async with online(server.url) as client:
        await client.request("a", params={"text": "still here"})
        await client.next("done", "a")
