"""A connection for a few frames: say something, then wait for the frames that answer it."""

import asyncio
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from protocol import frames as wire
from protocol.codec import FrameError, decode_server_message, encode

from .websocket import RawClient, text_frame

ANSWER_SECONDS: Final = 60.0


class Talk:
    """One connection that speaks `queuesystem.v1`; frames come back in order."""

    def __init__(self) -> None:
        self._frames: asyncio.Queue[wire.ServerFrame | FrameError] = asyncio.Queue()
        self._client = RawClient("/ws", wire.SUBPROTOCOL, self._take)

    @classmethod
    async def open(cls, url: str) -> "Talk":
        """Connect to the server at `url`. Raises ConnectionFailed."""
        talk = cls()
        address = urlsplit(url)
        host, port = address.hostname or "", address.port or 0
        await asyncio.get_running_loop().create_connection(lambda: talk._client, host, port)
        await talk._client.opened
        return talk

    async def ask(
        self, frames: Sequence[wire.ClientFrame], answers: int = 1
    ) -> list[wire.ServerFrame | FrameError]:
        """Send all in one message; return as many frames as are to come next.

        Raises TimeoutError when they do not come.
        """
        self._client.write(text_frame(b"\n".join(map(encode, frames))))
        async with asyncio.timeout(ANSWER_SECONDS):
            return [await self._frames.get() for _ in range(answers)]

    def abort(self) -> None:
        """End the connection at once."""
        self._client.abort()

    def _take(self, messages: list[bytes]) -> None:
        for message in messages:
            for frame in decode_server_message(message):
                self._frames.put_nowait(frame)
