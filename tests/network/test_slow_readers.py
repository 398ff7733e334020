"""A peer that reads nothing: its window is full, and what the server keeps for it is bounded."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from scripts.bench.framing import PING
from tests.network.conftest import ask
from tests.network.wire import Wire, frame
from tests.raw import online
from tests.server_process import ServerProcess, token, unique

MIB = 2**20
COUNT, SIZE = 3200, 10_000
"""Results of 30 MiB in all."""


@asynccontextmanager
async def deaf(port: int) -> AsyncIterator[Wire]:
    """Open a WebSocket whose client takes in next to nothing unless it is read."""
    link = socket.socket()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    link.setblocking(False)
    await asyncio.get_running_loop().sock_connect(link, ("127.0.0.1", port))
    wire = Wire(*await asyncio.open_connection(sock=link, limit=1024))
    try:
        await wire.handshake()
        yield wire
    finally:
        wire.writer.transport.abort()


async def test_a_full_window_holds_the_handler_back(own_server: ServerProcess) -> None:
    own_server.settings |= {
        "slow_consumer_timeout": 3600,
        "outbox_bytes": 65_536,
        "max_result_bytes": 128 * MIB,
    }
    await own_server.astart()
    key = unique()
    async with deaf(own_server.port) as wire, online(own_server.url) as other:
        welcome = await wire.hello()
        pour = {"key": key, "count": COUNT, "size": SIZE}
        wire.say(type="request", id="a", method="pour", params=pour)
        given = [-1, 0]
        while given[-1] != given[-2] or not given[-1]:
            # The handler never waits but for room: what it has not given now is held back.
            given.append(await ask(other, "poured", key=key))
        assert given[-1] * SIZE < 16 * MIB  # what kernels buffer, beside the outbox
        async with online(own_server.url, session=welcome["session"]) as again:
            frames = await again.until("done", "a")
    assert [f["index"] for f in frames if f["type"] == "result"] == list(range(COUNT))


async def test_a_full_window_is_disconnected_in_time_and_can_resume(
    own_server: ServerProcess,
) -> None:
    own_server.settings |= {"slow_consumer_timeout": 0.2, "max_result_bytes": 128 * MIB}
    await own_server.astart()
    async with deaf(own_server.port) as wire:
        welcome = await wire.hello()
        pour = {"key": unique(), "count": COUNT, "size": SIZE}
        wire.say(type="request", id="a", method="pour", params=pour)
        while "slow_consumer" not in own_server.log.read_text():
            await asyncio.sleep(0.02)
        async with online(own_server.url, session=welcome["session"]) as again:
            frames = await again.until("done", "a")
    assert [f["index"] for f in frames if f["type"] == "result"] == list(range(COUNT))


def resident_bytes(server: ServerProcess) -> int:
    """Return how much memory the server's process has."""
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


async def test_pings_whose_answers_nobody_reads_are_not_kept(server: ServerProcess) -> None:
    sent_bytes = 32 * MIB
    pings = frame(PING, b"x" * 125) * 500
    async with deaf(server.port) as wire:
        await wire.hello()
        before = resident_bytes(server)
        for _ in range(sent_bytes // len(pings)):
            wire.write(pings)
            await wire.writer.drain()
        # Behind all of them, on the same connection: when it is there, they were taken.
        wire.say(type="bye")
        async with online(server.url, token=token("other")) as other:
            while "bye: " not in server.log.read_text():
                await ask(other, "poured", key="")
        assert resident_bytes(server) - before < sent_bytes // 2
