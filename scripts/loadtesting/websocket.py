"""A WebSocket client that costs next to nothing, so that the server is what is measured.

    dial -> handshake -> `receive` gets what arrived together, ... -> `closed` says why it ended

Speaks ws:// and wss://, without compression.
"""

import asyncio
import os
import ssl
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha1
from pathlib import Path
from typing import Final, NamedTuple, cast
from urllib.parse import urlsplit

from protocol.codes import CloseCode, should_reconnect
from protocol.frames import SUBPROTOCOL
from scripts.bench.framing import (
    CLOSE,
    CONTINUATION,
    FIN,
    LONG_HEAD_BYTES,
    PING,
    PONG,
    TEXT,
    frame,
    split,
)

PORTS: Final = {"ws": 80, "wss": 443}
"""The schemes of URLs, with their ports."""
DIAL_SECONDS: Final = 10.0
"""For a connection with its TLS and WebSocket handshakes."""
MESSAGE_BYTES_MAX: Final = 64 * 2**20
"""A longer message from the server ends the connection."""
HANDSHAKE_BYTES_MAX: Final = 16 * 1024
ABNORMAL: Final = 1006
"""What stands for a close code when there was none (RFC 6455 section 7.4.1)."""
RETRYABLE_STATUS: Final = frozenset({408, 429, 500, 502, 503, 504})

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Target(NamedTuple):
    """Where the server is; `tls` is None for ws://."""

    host: str
    port: int
    path: str
    tls: ssl.SSLContext | None

    @classmethod
    def of(cls, url: str, ca: Path | None) -> "Target":
        """Take a URL apart; for wss:// trust the certificates in `ca`, or the system's."""
        parts = urlsplit(url)
        tls = ssl.create_default_context(cafile=ca) if parts.scheme == "wss" else None
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(parts.hostname or "", parts.port or PORTS[parts.scheme], path, tls)

    @property
    def authority(self) -> str:
        """The Host header."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class Lost(Exception):
    """A connection was not made, or is gone. `fatal`: it would be the same the next time."""

    def __init__(self, message: str, code: int = ABNORMAL, *, fatal: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.fatal = fatal


Receive = Callable[[list[bytes]], None]


async def dial(target: Target, receive: Receive) -> "Socket":
    """Open a WebSocket. Raises Lost."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            _, socket = await loop.create_connection(
                lambda: Socket(target, receive),
                target.host,
                target.port,
                ssl=target.tls,
                server_hostname=target.host if target.tls is not None else None,
            )
            try:
                await socket.opened
            except BaseException:
                socket.abort()
                raise
    except TimeoutError:
        raise Lost(f"no connection within {DIAL_SECONDS:g} seconds") from None
    except ssl.SSLCertVerificationError as error:
        raise Lost(f"the certificate is not trusted: {error.verify_message}", fatal=True) from None
    except OSError as error:
        raise Lost(str(error)) from None
    return socket


class Socket(asyncio.Protocol):
    """One connection; `receive` gets the messages that arrived together and must not raise.

    `opened` is done after the handshake, or raises Lost; `closed` is done when the connection is
    gone, with the Lost that tells why.
    """

    def __init__(self, target: Target, receive: Receive) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[Lost] = loop.create_future()
        self._target = target
        self._receive = receive
        self._key = b64encode(os.urandom(16))
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._fragments: list[bytes] = []

    # The transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        lines = [
            f"GET {self._target.path} HTTP/1.1",
            f"Host: {self._target.authority}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {self._key.decode()}",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Protocol: {SUBPROTOCOL}",
        ]
        self._write(("\r\n".join(lines) + "\r\n\r\n").encode())

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        position = 0
        if not self.opened.done():
            position = self._handshake(data)
            if position == 0:
                return
        frames, position, needed = split(data, position)
        if (size := needed - LONG_HEAD_BYTES) > MESSAGE_BYTES_MAX:
            self._fail(Lost(f"a message of {size} bytes is too big", CloseCode.TOO_BIG))
        messages: list[bytes] = []
        for first, payload in frames:
            if first == FIN | TEXT:
                messages.append(payload)
            elif first & ~FIN in {TEXT, CONTINUATION}:
                self._fragment(first, payload, messages)
            else:
                self._control(first, payload)
        self._rest = data[position:]
        if messages:
            self._receive(messages)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(Lost(f"the connection was lost: {exc or 'the server ended it'}"))

    # Reading

    def _handshake(self, data: bytes) -> int:
        """Return where the first frame starts, or 0 while there is no good answer."""
        head, blank, body = data.partition(b"\r\n\r\n")
        if not blank and len(data) < HANDSHAKE_BYTES_MAX:
            self._rest = data
            return 0
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        accept = b64encode(sha1(self._key + _GUID, usedforsecurity=False).digest()).decode()
        if not status.startswith("HTTP/1.1 101"):
            self._fail(_no_websocket(status, body))
        elif headers.get("sec-websocket-accept") != accept:
            self._fail(Lost("the handshake was answered wrongly", fatal=True))
        elif headers.get("sec-websocket-protocol") != SUBPROTOCOL:
            self._fail(Lost(f"the server does not speak {SUBPROTOCOL}", fatal=True))
        else:
            self.opened.set_result(None)
            return len(head) + len(blank)
        return 0

    def _fragment(self, first: int, payload: bytes, messages: list[bytes]) -> None:
        """Take a part of a message: proxies may cut messages into such."""
        self._fragments.append(payload)
        if sum(map(len, self._fragments)) > MESSAGE_BYTES_MAX:
            self._fail(Lost("a message in fragments is too big", CloseCode.TOO_BIG))
        elif first & FIN:
            messages.append(b"".join(self._fragments))
            self._fragments.clear()

    def _control(self, first: int, payload: bytes) -> None:
        if first == FIN | PING:
            self._write(frame(PONG, payload))
        elif first == FIN | CLOSE:
            self._write(frame(CLOSE, payload[:2]))
            self._fail(_closed(payload))
        elif first != FIN | PONG:
            message = f"a frame that starts with {first:#04x} was not expected"
            self._fail(Lost(message, CloseCode.PROTOCOL_ERROR, fatal=True))

    def _fail(self, lost: Lost) -> None:
        """Note the first reason for which the connection ends, and end it."""
        if not self.closed.done():
            self.closed.set_result(lost)
        if not self.opened.done():
            self.opened.set_exception(lost)
            self.opened.exception()  # nobody may be waiting any more
        if self._transport is not None:
            self._transport.close()

    # Writing

    def send(self, message: bytes) -> None:
        """Send a text message; nothing happens on a connection that is gone."""
        self._write(frame(TEXT, message))

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()


def _closed(payload: bytes) -> Lost:
    if len(payload) < 2:
        return Lost("the server closed the connection", 1005)  # "no status", section 7.4.1
    code = int.from_bytes(payload[:2])
    reason = payload[2:].decode(errors="replace") or "no reason given"
    return Lost(f"closed with {code}: {reason}", code, fatal=not should_reconnect(code))


def _no_websocket(status: str, body: bytes) -> Lost:
    code = status.split(" ")[1] if " " in status else ""
    text = body[:200].decode(errors="replace").strip()
    message = f"{status[:80]!r} instead of a WebSocket" + (text and f": {text}")
    retryable = code.isdecimal() and int(code) in RETRYABLE_STATUS
    return Lost(message, fatal=not retryable)
