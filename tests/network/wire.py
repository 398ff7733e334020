"""A WebSocket client of bytes: it frames what it is told to, right or wrong, and knows no rules."""

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

from scripts.bench.framing import TEXT
from tests.server_process import token

BINARY: Final = 0x2

MASK: Final = b"\x1b\x80\xff\x0a"
KEY: Final = base64.b64encode(b"sixteen bytes ok").decode()
HANDSHAKE: Final[Mapping[str, str]] = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}
"""The headers of a good handshake."""


class Frame(NamedTuple):
    """A frame as it came."""

    opcode: int
    payload: bytes
    fin: bool = True

    @property
    def close_code(self) -> int:
        """The code of a close frame; 1005 when it has none (RFC 6455 section 7.1.5)."""
        return int.from_bytes(self.payload[:2]) if self.payload else 1005


def request(
    headers: Mapping[str, str | None] | None = None, line: str = "GET /ws HTTP/1.1"
) -> bytes:
    """Return a handshake; `headers` replace its own, None leaves one out."""
    fields = {**HANDSHAKE, **(headers or {})}
    lines = [line, *(f"{name}: {value}" for name, value in fields.items() if value is not None)]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = MASK,
) -> bytes:
    """Return the bytes of a frame; `rsv` are the three reserved bits, 4 is the first."""
    size = len(payload)
    masked = 0 if mask is None else 0x80
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if size < 126:
        head += bytes([masked | size])
    elif size < 2**16:
        head += struct.pack("!BH", masked | 126, size)
    else:
        head += struct.pack("!BQ", masked | 127, size)
    return head + payload if mask is None else head + mask + masked_with(mask, payload)


def masked_with(mask: bytes, payload: bytes) -> bytes:
    """Apply a mask (RFC 6455 section 5.3)."""
    size = len(payload)
    pad = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(pad)).to_bytes(size)


def close_payload(code: int, reason: bytes = b"") -> bytes:
    """Return what a close frame carries."""
    return code.to_bytes(2) + reason


class Wire:
    """One TCP connection.

    Raises IncompleteReadError where it ends, and ConnectionResetError where it is cut.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def handshake(self, headers: Mapping[str, str | None] | None = None) -> bytes:
        """Open the WebSocket; return the head of the response, which must be 101."""
        self.writer.write(request(headers))
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        return head

    async def hello(self, **more: Any) -> dict[str, Any]:
        """Say hello as alice, unless told otherwise; return the welcome."""
        self.send(TEXT, json.dumps({"type": "hello", "token": token(), **more}).encode())
        return json.loads((await self.receive()).payload.partition(b"\n")[0])

    def say(self, **fields: Any) -> None:
        """Send one frame of the session."""
        self.send(TEXT, json.dumps(fields).encode())

    def write(self, data: bytes) -> None:
        """Write bytes as they are."""
        self.writer.write(data)

    async def write_in_chops(self, data: bytes, size: int) -> None:
        """Write `size` bytes at a time, each lot as a TCP segment of its own if the system can."""
        for start in range(0, len(data), size):
            self.writer.write(data[start : start + size])
            await self.writer.drain()
            await asyncio.sleep(0)

    def send(self, opcode: int, payload: bytes = b"") -> None:
        """Write a good frame."""
        self.writer.write(frame(opcode, payload))

    async def receive(self) -> Frame:
        """Return the next frame. Servers do not mask."""
        first, size = await self.reader.readexactly(2)
        assert size < 0x80, "a server must not mask (RFC 6455 section 5.1)"
        if size == 126:
            size = int.from_bytes(await self.reader.readexactly(2))
        elif size == 127:
            size = int.from_bytes(await self.reader.readexactly(8))
        payload = await self.reader.readexactly(size) if size else b""
        return Frame(first & 0x0F, payload, first >= 0x80)

    async def receive_all(self) -> list[Frame]:
        """Return the frames that come until the connection ends."""
        frames: list[Frame] = []
        while True:
            try:
                frames.append(await self.receive())
            except asyncio.IncompleteReadError as end:
                if end.partial:
                    raise AssertionError("the connection ended inside a frame") from end
                return frames

    async def rest(self) -> bytes:
        """Return what comes until the connection ends."""
        return await self.reader.read()


@asynccontextmanager
async def dialled(port: int, host: str = "127.0.0.1") -> AsyncIterator[Wire]:
    """Connect, and say nothing yet."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def opened(port: int, host: str = "127.0.0.1") -> AsyncIterator[Wire]:
    """Connect and open the WebSocket."""
    async with dialled(port, host) as wire:
        await wire.handshake()
        yield wire
