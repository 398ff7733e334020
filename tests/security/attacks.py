"""What an attacker brings: bytes instead of a client, and a look at what the server pays."""

import asyncio
from pathlib import Path

from tests.raw import online
from tests.server_process import ServerProcess, token, unique


async def exchange(server: ServerProcess, request: bytes) -> bytes:
    """Send bytes on a connection of their own; return everything that comes until its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(request)
        return await reader.read()
    finally:
        writer.close()


def status(response: bytes) -> int:
    """Return the status of an HTTP response."""
    return int(response.split(b" ", 2)[1])


def memory_mib(server: ServerProcess) -> float:
    """Return what the server's process has in memory."""
    assert server.process is not None
    for line in Path(f"/proc/{server.process.pid}/status").read_text().split("\n"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("the process has no VmRSS")


async def serves(server: ServerProcess) -> None:
    """Assert that somebody else is served from hello to done."""
    async with online(server.url, token=token("somebody else")) as client:
        await client.request(request_id := unique(), params={"text": "fine"})
        await client.next("done", request_id)
