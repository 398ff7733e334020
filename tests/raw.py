"""A client that knows the frames and no rules, to say to a server what no good client would."""

import json
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from protocol.frames import SUBPROTOCOL
from tests.server_process import token

Frame = dict[str, Any]


class RawClient:
    """One WebSocket; `receive` gives frames one by one, whatever messages they came in."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self._frames: deque[Frame] = deque()

    async def send(self, *frames: Frame) -> None:
        """Send frames in one message."""
        await self.socket.send("\n".join(json.dumps(frame) for frame in frames))

    async def request(self, id: str, method: str = "echo", **more: Any) -> None:  # noqa: A002
        """Send one request; `more` are further fields of the frame."""
        await self.send({"type": "request", "id": id, "method": method, **more})

    async def receive(self) -> Frame:
        """Return the next frame."""
        while not self._frames:
            message = await self.socket.recv()
            assert isinstance(message, str), "the server sends text"
            self._frames.extend(json.loads(line) for line in message.split("\n"))
        return self._frames.popleft()

    async def until(self, type: str, id: str | None = None) -> list[Frame]:  # noqa: A002
        """Return the frames up to the first of that type (and request id)."""
        frames: list[Frame] = []
        while True:
            frames.append(await self.receive())
            if frames[-1]["type"] == type and id in (None, frames[-1].get("id")):
                return frames

    async def next(self, type: str, id: str | None = None) -> Frame:  # noqa: A002
        """Return the first frame of that type (and request id), passing over others."""
        return (await self.until(type, id))[-1]

    async def all_of(self, *wanted: tuple[str, str]) -> None:
        """Receive until a frame of each of these types and ids has come, in any order."""
        missing = set(wanted)
        while missing:
            frame = await self.receive()
            missing.discard((frame["type"], frame.get("id", "")))

    async def hello(self, **more: Any) -> Frame:
        """Say hello as alice (unless told otherwise) and return the welcome."""
        await self.send({"type": "hello", "token": token(), **more})
        return await self.next("welcome")

    async def until_closed(self) -> list[Frame]:
        """Return the frames that come until the server closes."""
        frames: list[Frame] = []
        try:
            while True:
                frames.append(await self.receive())
        except ConnectionClosed:
            return frames

    async def closed(self) -> tuple[int, str]:
        """Wait until the server closes; return code and reason."""
        try:
            while True:
                await self.socket.recv()
        except ConnectionClosed:
            assert self.socket.close_code is not None
            return self.socket.close_code, self.socket.close_reason or ""


@asynccontextmanager
async def raw(url: str, headers: Mapping[str, str] | None = None) -> AsyncIterator[RawClient]:
    """Open a WebSocket without saying anything."""
    async with connect(
        url,
        subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]
        additional_headers=headers,
        compression=None,
        max_size=64 * 2**20,
        proxy=None,
        close_timeout=1,
    ) as socket:
        yield RawClient(socket)


@asynccontextmanager
async def online(url: str, **hello: Any) -> AsyncIterator[RawClient]:
    """Open a WebSocket and say hello; the welcome was received."""
    async with raw(url) as client:
        await client.hello(**hello)
        yield client
