"""A WebSocket client that costs next to nothing, so that a benchmark measures the server."""

import asyncio
import os
from base64 import b64encode
from collections.abc import Callable
from typing import Final, cast

from .framing import CLOSE, FIN, PING, PONG, TEXT, frame, split

HANDSHAKE_BYTES_MAX: Final = 16 * 1024


class ConnectionFailed(Exception):
    """The connection could not be made, or ended before the load was over."""


def text_frame(payload: bytes) -> bytes:
    """Return a text message as a client sends it."""
    return frame(TEXT, payload)


class RawClient(asyncio.Protocol):
    """One connection. What arrives together comes in one call of `take` (messages in order).

    `take` must not raise. `closed` is done when the connection is gone, with an exception if it
    went without a closing handshake; `close_code` is what the server said then.
    """

    def __init__(self, path: str, subprotocol: str | None, take: Callable[[list[bytes]], None]):
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.close_code: int | None = None
        self._transport: asyncio.Transport | None = None
        self._path = path
        self._subprotocol = subprotocol
        self._take = take
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._needed_bytes = 0
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        host, port = transport.get_extra_info("peername")[:2]
        lines = [
            f"GET {self._path} HTTP/1.1",
            f"Host: {host}:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {b64encode(os.urandom(16)).decode()}",
            "Sec-WebSocket-Version: 13",
        ]
        if self._subprotocol is not None:
            lines.append(f"Sec-WebSocket-Protocol: {self._subprotocol}")
        self.write(("\r\n".join(lines) + "\r\n\r\n").encode())

    def data_received(self, data: bytes) -> None:
        if self._rest:
            # Joined when the frame is complete: a large one comes in many pieces.
            self._rest.append(data)
            self._rest_bytes += len(data)
            if self._rest_bytes < self._needed_bytes:
                return
            data = b"".join(self._rest)
            self._rest.clear()
        position = 0
        if not self.opened.done():
            position = self._handshake(data)
            if position == 0:
                return
        frames, position, needed = split(data, position)
        messages: list[bytes] = []
        for first, payload in frames:
            if first == FIN | TEXT:
                messages.append(payload)
            else:
                self._control(first, payload)
        if position < len(data):
            self._keep(data[position:], needed)
        if messages:
            self._take(messages)

    def _keep(self, rest: bytes, needed_bytes: int) -> None:
        """Keep the begin of a frame, which has `needed_bytes` in all (0: not known yet)."""
        self._rest.append(rest)
        self._rest_bytes = len(rest)
        self._needed_bytes = needed_bytes

    def _handshake(self, data: bytes) -> int:
        """Return where the first frame starts, or 0 while the response is not complete."""
        head, blank, _ = data.partition(b"\r\n\r\n")
        if not blank and len(data) < HANDSHAKE_BYTES_MAX:
            self._keep(data, 0)
            return 0
        if not head.startswith(b"HTTP/1.1 101 "):
            self._fail(f"the handshake was answered with {head[:80]!r}")
            return 0
        self.opened.set_result(None)
        return len(head) + len(blank)

    def _control(self, first: int, payload: bytes) -> None:
        if first == FIN | PING:
            self.write(frame(PONG, payload))
        elif first == FIN | CLOSE:
            self.close_code = int.from_bytes(payload[:2])
            if not self._closing:
                self.write(frame(CLOSE, payload[:2]))
        elif first != FIN | PONG:
            # Neither server sends fragments or binary messages.
            self._fail(f"a frame that starts with {first:#04x} was not expected")

    def _fail(self, message: str) -> None:
        for future in (self.opened, self.closed):
            if not future.done():
                future.set_exception(ConnectionFailed(message))
                future.exception()  # whoever waits for the other one hears of it
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.close_code is None or not self.opened.done():
            self._fail(f"the connection was lost: {exc or 'the server ended it'}")
        elif not self.closed.done():
            self.closed.set_result(None)

    def write(self, data: bytes) -> None:
        """Write frames; nothing happens on a connection that is not there."""
        if self._transport is not None:
            self._transport.write(data)

    def abort(self) -> None:
        """End the connection at once, if there is one."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Begin the closing handshake; the server's frames before its answer still arrive."""
        self._closing = True
        self.write(frame(CLOSE, (1000).to_bytes(2)))
