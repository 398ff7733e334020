"""A hostile server on a real socket: the client must end as documented, in bounded time."""

import asyncio
import json
from contextlib import suppress
from random import Random
from typing import Any

import msgspec
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from protocol.client import Session, connect
from protocol.client_errors import ClientError
from protocol.frames import SUBPROTOCOL, Limits, ServerInfo, Welcome

from .mutation import ODD_VALUES, mutate_bytes, object_text

BLOCK_SECONDS = 30.0
"""Far more than all of the client's own bounds in this test."""
ODD_DATA = 0.3
"""The codec does not look at the data of results, so that nothing hides what it does."""
USE_SECONDS = 0.5
"""A server may leave a request unanswered for ever."""
WELCOME = Welcome("s", False, "e", 0, [], 1, Limits(64, 2**20, 2**20, 60), ServerInfo("h", "1"))
FRAMES: tuple[dict[str, Any], ...] = (
    {"type": "accepted", "id": "$", "n": 1},
    {"type": "result", "id": "$", "seq": 1, "attempt": 1, "index": 0, "data": {"x": 1}},
    {"type": "done", "id": "$", "seq": 1, "attempt": 1, "results": 1},
    {
        "type": "error",
        "code": "overloaded",
        "message": "m",
        "retryable": True,
        "id": "$",
        "retry_after": 0.01,
    },
    {"type": "error", "code": "no", "message": "m", "retryable": False, "id": "$", "seq": 1},
    {"type": "goaway", "reason": "r", "reconnect_after": 0.01},
    {"type": "refreshed", "expires_at": 1},
)


class Hostile:
    """What it sends is decided by `random`."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._ids: list[str] = ["a"]
        self._seq = 0

    async def serve(self, connection: ServerConnection) -> None:
        random = self._random
        try:
            await connection.recv()
            self._seq = 0
            badness = random.choice((0, 0, 0.05, 0.3))
            await connection.send(object_text(msgspec.to_builtins(WELCOME), random, badness / 5))
            for _ in range(random.randrange(60)):
                await self._hear(connection)
                await connection.send(self._message(random.choice((0, badness))))
            match random.randrange(4):
                case 0:
                    connection.transport.write(random.randbytes(random.randrange(1, 200)))
                case 1:
                    connection.transport.abort()
                case 2:
                    await connection.close(random.choice((1000, 1011, 1012, 4401, 4500)))
                case _:
                    async with asyncio.timeout(0.2):
                        await connection.wait_closed()
        except (ConnectionClosed, TimeoutError):
            connection.transport.abort()

    async def _hear(self, connection: ServerConnection) -> None:
        try:
            async with asyncio.timeout(0.001):
                message = await connection.recv()
        except TimeoutError:
            return
        for line in str(message).split("\n"):
            frame = json.loads(line)
            if frame["type"] == "request":
                self._ids.append(frame["id"])

    def _message(self, badness: float) -> str | bytes:
        random = self._random
        frames: list[str] = []
        for _ in range(random.choice((1, 2, 5))):
            frame = dict(random.choice(FRAMES))
            if "id" in frame:
                frame["id"] = random.choice(self._ids[-6:])
            if "seq" in frame:
                self._seq += random.choice((1, 1, 1, 1, 0, 5))
                frame["seq"] = self._seq
            if "data" in frame and random.random() < ODD_DATA:
                text = object_text(frame, random, 0)
                frames.append(text.replace('{"x": 1}', random.choice(ODD_VALUES)))
            else:
                frames.append(object_text(frame, random, badness))
        text = "\n".join(frames).encode(errors="surrogatepass")
        if random.random() < badness:
            return mutate_bytes(text, random)  # binary, or no UTF-8
        return text.decode(errors="replace")


async def use(session: Session) -> None:
    """Take results in every way there is. Raises what the client raises."""

    async def one_by_one() -> None:
        async for _ in session.request("m", a=1):
            pass

    async def events() -> None:
        async for _ in session.request("m", a=2).events():
            pass

    async def last() -> None:
        await session.request("m", a=3)

    async def all_of_them() -> None:
        await session.request("m", a=4).results()

    async def cancelled() -> None:
        handle = session.request("m", a=5)
        handle.cancel()
        await handle

    ways = (one_by_one, events, last, all_of_them, cancelled)
    for error in await asyncio.gather(*(way() for way in ways), return_exceptions=True):
        if error is not None and not isinstance(error, ClientError):
            raise error


async def run(seed: str) -> None:
    """Let a client work with a hostile server. Raises what a client must not raise, or hang."""
    random = Random(seed)
    hostile = Hostile(random)
    async with serve(
        hostile.serve, "127.0.0.1", 0, subprotocols=[Subprotocol(SUBPROTOCOL)], close_timeout=0.1
    ) as server:
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(BLOCK_SECONDS):
            with suppress(ClientError):
                async with connect(
                    f"ws://127.0.0.1:{port}/ws",
                    token=lambda: "t",
                    connect_timeout_seconds=0.3,
                    give_up_after_seconds=0.3,
                    buffer_bytes=random.choice((1000, 10**6)),
                    max_message_bytes=10**6,
                ) as session:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(USE_SECONDS):
                            await use(session)
