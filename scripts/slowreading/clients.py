"""Two kinds of clients: some stop reading, the others go on with small requests at a fixed pace."""

import asyncio
import socket
from collections.abc import Sequence
from typing import Final, cast
from urllib.parse import urlsplit

from msgspec import Raw

from protocol import frames as wire
from protocol.codec import decode_server_message, encode
from scripts.bench.websocket import RawClient, text_frame

RECEIVE_BUFFER_BYTES: Final = 4096
"""What the system takes in for a client that does not read, beside what it sends for the server."""
ACK_EVENTS: Final = 32


class Failed(Exception):
    """Something came that is not what had to come."""


async def connect(client: RawClient, url: str, token: str, *, small_buffer: bool = False) -> None:
    """Open the WebSocket and say hello."""
    address = urlsplit(url)
    link = socket.socket()
    if small_buffer:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    link.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(link, (address.hostname, address.port))
    await loop.create_connection(lambda: client, sock=link)
    await client.opened
    client.write(text_frame(encode(wire.Hello(token=token))))


class Deaf(RawClient):
    """Asks for results and stops reading."""

    def __init__(self) -> None:
        super().__init__("/ws", wire.SUBPROTOCOL, self._welcomed)
        self._loop = asyncio.get_running_loop()
        self._welcome: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.link = cast("asyncio.Transport", transport)
        super().connection_made(transport)

    def _welcomed(self, messages: list[bytes]) -> None:
        if not self._welcome.done():
            self._welcome.set_result(None)

    async def ask(self, requests: Sequence[wire.Request]) -> None:
        """Send `requests`; whatever comes then is left to wait."""
        await self._welcome
        self.link.pause_reading()
        self.write(text_frame(b"\n".join(map(encode, requests))))


class Steady(RawClient):
    """Sends one `echo` every `interval_seconds`; `seconds` has how long each took from when it
    was due to its `done`.
    """

    def __init__(self, interval_seconds: float) -> None:
        super().__init__("/ws", wire.SUBPROTOCOL, self._came)
        self.seconds: list[float] = []
        self.failure: str | None = None
        self._loop = asyncio.get_running_loop()
        self._interval_seconds = interval_seconds
        self._due_at: list[float] = []
        self._next_at = 0.0
        self._seq = 0
        self._acked = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def unanswered(self) -> int:
        """How many requests have not ended."""
        return len(self._due_at) - len(self.seconds)

    def begin(self, delay_seconds: float) -> None:
        """Send the first request in so long."""
        self._next_at = self._loop.time() + delay_seconds
        self._timer = self._loop.call_at(self._next_at, self._send)

    def end(self) -> None:
        """Send no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _send(self) -> None:
        frames: list[wire.ClientFrame] = []
        if self._seq - self._acked >= ACK_EVENTS:
            self._acked = self._seq
            frames.append(wire.Ack(self._seq))
        number = len(self._due_at)
        self._due_at.append(self._next_at)
        frames.append(wire.Request(str(number), "echo", _PARAMS))
        self.write(text_frame(b"\n".join(map(encode, frames))))
        self._next_at += self._interval_seconds
        self._timer = self._loop.call_at(self._next_at, self._send)

    def _came(self, messages: list[bytes]) -> None:
        now = self._loop.time()
        for message in messages:
            for frame in decode_server_message(message):
                if isinstance(frame, wire.Result | wire.Done):
                    self._seq = frame.seq
                if isinstance(frame, wire.Done):
                    if frame.id != str(len(self.seconds)):
                        self._wrong(f"{frame.id} ended before {len(self.seconds)}")
                    self.seconds.append(now - self._due_at[len(self.seconds)])
                elif not isinstance(frame, wire.Result | wire.Welcome | wire.Accepted):
                    self._wrong(str(frame))

    def _wrong(self, text: str) -> None:
        self.failure = self.failure or text


_PARAMS: Final = Raw(b'{"text":"to be or not to be"}')
