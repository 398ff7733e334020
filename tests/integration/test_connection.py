"""The bytes below the messages: HTTP requests, WebSocket frames (RFC 6455), and silence."""

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from protocol.codes import CloseCode
from server.connection import Connection
from server.listener import PING_SECONDS, Listener
from server.sockets import listen
from tests.server_process import ServerProcess, token

TEXT, CLOSE, PING, PONG, CONTINUATION = 0x1, 0x8, 0x9, 0xA, 0x0
FIN = 0x80
MASK = b"\x01\x02\x03\x04"


class Wire:
    """A client that writes bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def handshake(self) -> None:
        key = base64.b64encode(b"x" * 16).decode()
        self.writer.write(
            b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: " + key.encode() + b"\r\n\r\n"
        )
        assert (await self.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")

    def frame(self, opcode: int, payload: bytes, *, fin: bool = True, mask: bool = True) -> bytes:
        first = opcode | (FIN if fin else 0)
        size = len(payload)
        head = bytes([first, (FIN if mask else 0) | (size if size < 126 else 126)])
        if size >= 126:
            head += struct.pack("!H", size)
        if not mask:
            return head + payload
        return head + MASK + bytes(b ^ MASK[i % 4] for i, b in enumerate(payload))

    def send(self, opcode: int, payload: bytes, **how: bool) -> None:
        self.writer.write(self.frame(opcode, payload, **how))

    async def receive(self) -> tuple[int, bytes]:
        """Return opcode and payload of the next frame; servers do not mask."""
        first, size = await self.reader.readexactly(2)
        if size == 126:
            size = int.from_bytes(await self.reader.readexactly(2))
        return first & 0x0F, await self.reader.readexactly(size)

    async def hello(self, **more: Any) -> dict[str, Any]:
        self.send(TEXT, json.dumps({"type": "hello", "token": token(), **more}).encode())
        return json.loads((await self.receive())[1].partition(b"\n")[0])

    async def closed(self) -> int:
        """Return the code of the close frame that comes, passing over others."""
        while True:
            opcode, payload = await self.receive()
            if opcode == CLOSE:
                return int.from_bytes(payload[:2])


@asynccontextmanager
async def wire(server: ServerProcess) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()


@asynccontextmanager
async def online(server: ServerProcess) -> AsyncIterator[Wire]:
    async with wire(server) as client:
        await client.handshake()
        assert (await client.hello())["type"] == "welcome"
        yield client


REQUEST = b'{"type":"request","id":"a","method":"echo","params":{"text":"hello"}}'


async def done(client: Wire) -> None:
    """Receive until a request has ended well."""
    while b'"done"' not in (await client.receive())[1]:
        pass


async def test_a_message_may_come_in_fragments_with_a_ping_between(server: ServerProcess) -> None:
    async with online(server) as client:
        client.send(TEXT, REQUEST[:10], fin=False)
        client.send(CONTINUATION, REQUEST[10:20], fin=False)
        client.send(PING, b"still there?")
        assert await client.receive() == (PONG, b"still there?")
        client.send(CONTINUATION, REQUEST[20:])
        await done(client)


async def test_bytes_may_come_one_by_one(server: ServerProcess) -> None:
    async with online(server) as client:
        for byte in client.frame(TEXT, REQUEST):
            client.writer.write(bytes([byte]))
            await client.writer.drain()
        await done(client)


async def test_several_messages_may_come_in_one_piece(server: ServerProcess) -> None:
    async with online(server) as client:
        other = REQUEST.replace(b'"a"', b'"b"')
        client.writer.write(client.frame(TEXT, REQUEST) + client.frame(TEXT, other))
        seen = b""
        while seen.count(b'"done"') < 2:
            seen += (await client.receive())[1]


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"opcode": TEXT, "payload": b"\xff\xfe"}, 1007),
        ({"opcode": TEXT, "payload": REQUEST, "mask": False}, 1002),
        ({"opcode": 0x3, "payload": b""}, 1002),
        ({"opcode": CONTINUATION, "payload": b"x"}, 1002),
        ({"opcode": TEXT, "payload": b"x" * 5000}, 1009),
    ],
    ids=["not utf-8", "not masked", "unknown opcode", "nothing to continue", "too big"],
)
async def test_what_is_no_websocket_message_closes_with_the_code_of_the_standard(
    server: ServerProcess, frame: dict[str, Any], code: int
) -> None:
    async with online(server) as client:
        client.send(**frame)
        assert await client.closed() == code
        assert await client.reader.read() == b""  # the server ends the connection


async def test_fragments_over_the_limit_close_with_1009(server: ServerProcess) -> None:
    async with online(server) as client:
        client.send(TEXT, b"x" * 3000, fin=False)
        client.send(CONTINUATION, b"x" * 3000)
        assert await client.closed() == 1009


async def test_a_close_frame_is_answered_and_the_session_can_be_resumed(
    server: ServerProcess,
) -> None:
    async with wire(server) as client:
        await client.handshake()
        welcome = await client.hello()
        client.send(CLOSE, (1000).to_bytes(2))
        assert await client.closed() == 1000
        assert await client.reader.read() == b""
    async with wire(server) as client:
        await client.handshake()
        assert (await client.hello(session=welcome["session"]))["resumed"]


async def test_a_connection_that_ends_inside_a_frame_loses_nothing(server: ServerProcess) -> None:
    async with wire(server) as client:
        await client.handshake()
        welcome = await client.hello()
        client.writer.write(client.frame(TEXT, REQUEST) + client.frame(TEXT, REQUEST)[:9])
        await done(client)
    async with wire(server) as client:
        await client.handshake()
        again = await client.hello(session=welcome["session"])
        assert [request["state"] for request in again["requests"]] == ["ended"]


async def test_what_comes_behind_hello_waits_for_welcome(server: ServerProcess) -> None:
    async with wire(server) as client:
        await client.handshake()
        hello = json.dumps({"type": "hello", "token": token()}).encode()
        client.writer.write(client.frame(TEXT, hello) + client.frame(TEXT, REQUEST))
        assert json.loads((await client.receive())[1])["type"] == "welcome"
        await done(client)


# HTTP


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /livez HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n", 426),
        (b"POST /token HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 400),
    ],
    ids=["nonsense", "long line", "long header", "no upgrade", "with a body"],
)
async def test_every_http_request_gets_a_response(
    server: ServerProcess, request_text: bytes, status: int
) -> None:
    async with wire(server) as client:
        client.writer.write(request_text)
        response = await client.reader.read()
        assert response.startswith(b"HTTP/1.1 %d " % status)
        assert response.count(b"HTTP/1.1 4") == 1


async def test_who_sends_no_request_is_cut_off(server: ServerProcess) -> None:
    async with wire(server) as client:
        client.writer.write(b"GET /ws HTTP/1.1\r\n")
        assert await client.reader.read() == b""


async def test_a_failure_of_ours_closes_with_1011() -> None:
    async def open_to_all(*_: Any) -> None:
        return None

    async def fail(_: Connection) -> None:
        raise RuntimeError("a bug")

    listener = Listener(open_to_all, fail, open_timeout_seconds=5, max_message_bytes=100)
    await listener.start(listen("127.0.0.1", 0))
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    client = Wire(reader, writer)
    await client.handshake()
    assert await client.closed() == 1011
    writer.close()
    listener.stop_accepting()
    await listener.close_all(CloseCode.RESTART, "", timeout_seconds=60)


# Silence


class Silent:
    """A connection of which nothing is heard."""

    id = "silent"

    def __init__(self, silent_seconds: float, *, pinged: bool = False) -> None:
        self.seen_at = asyncio.get_running_loop().time() - silent_seconds
        self.pinged = pinged
        self.open = True
        self.calls: list[Any] = []

    def ping(self) -> None:
        self.calls.append("ping")

    def close(self, code: int, _reason: str) -> None:
        self.calls.append(int(code))


@pytest.mark.parametrize(
    ("silent_seconds", "pinged", "calls"),
    [
        (PING_SECONDS / 2, False, []),
        (PING_SECONDS * 1.1, False, ["ping"]),
        (PING_SECONDS * 1.5, True, []),
        (PING_SECONDS * 2.1, True, [1011]),
    ],
)
async def test_a_silent_peer_is_pinged_and_then_cut_off(
    silent_seconds: float, pinged: bool, calls: list[Any]
) -> None:
    async def unused(*_: Any) -> None:
        raise AssertionError

    listener = Listener(unused, unused, open_timeout_seconds=1, max_message_bytes=1)
    silent: Any = Silent(silent_seconds, pinged=pinged)
    connections: set[Connection] = {silent}
    listener.connections = connections
    listener.sweep()
    assert silent.calls == calls
