"""What anybody on the network can do to a connection before, or without, being somebody."""

import asyncio
import json
import re
import tracemalloc
from contextlib import AsyncExitStack, suppress
from typing import Any
from unittest import mock

import pytest
import structlog.testing
from websockets.protocol import State
from websockets.server import ServerProtocol

from server.connection import HELLO_BYTES_MAX, Connection, Traffic
from server.listener import Listener
from server.sockets import listen
from tests.integration.test_connection import (
    CONTINUATION,
    MASK,
    PING,
    PONG,
    REQUEST,
    TEXT,
    Wire,
    done,
    online,
    wire,
)
from tests.security.attacks import exchange, serves, status
from tests.server_process import ServerProcess, token

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eHh4eHh4eHh4eHh4eHh4eA==\r\n"
)


RESPONSES = re.compile(rb"HTTP/1\.1 (\d{3}) ")


async def drip(
    server: ServerProcess, opening: bytes, drop: bytes, end: bytes, after_handshake: bytes = b""
) -> bytes:
    """Send `opening`, then a `drop` again and again until `end` comes, or the end of it all.

    With `after_handshake`, that is sent before the drops, once the handshake was answered.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(opening)
    if after_handshake:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(after_handshake)
    answer = asyncio.ensure_future(reader.readuntil(end) if end else reader.read())
    try:
        while not answer.done():
            writer.write(drop)
            await asyncio.wait([answer], timeout=0.1)
        return answer.result()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_who_sends_slowly_is_cut_off_whatever_it_is_slow_with(server: ServerProcess) -> None:
    """Slowloris: a byte now and then must not keep a connection alive."""
    line, headers, hello = await asyncio.gather(
        drip(server, b"GET /", b"x", b""),
        drip(server, b"GET /ws HTTP/1.1\r\n", b"X: y\r\n", b""),
        drip(server, HANDSHAKE + b"\r\n", b"x", b"in time", b"\x81\xfe\x40\x00" + MASK),
    )
    assert (line, headers) == (b"", b"")
    assert hello.endswith(b"\x11\x38unauthenticated: no hello frame in time")  # 4408


async def test_many_who_say_nothing_do_not_keep_others_out(server: ServerProcess) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(300):
            await stack.enter_async_context(wire(server))
        await serves(server)


async def test_more_sockets_than_the_bound_are_cut_off_and_places_come_free() -> None:
    async def unused(*_: Any) -> None:
        raise AssertionError

    listener = Listener(
        unused,
        unused,
        open_timeout_seconds=60,
        max_message_bytes=1024,
        max_connections=2,
        spare_connections=3,
    )
    await listener.start(listen("127.0.0.1", 0))
    there: Any = listener  # `wire` needs its port
    async with AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(wire(there))
        while len(listener.connections) < 5:
            await asyncio.sleep(0)
        async with wire(there) as one_too_many:
            with suppress(ConnectionResetError):
                assert await one_too_many.reader.read() == b""
        assert len(listener.connections) == 5
        with structlog.testing.capture_logs() as lines:
            listener.sweep()
        assert [(line["event"], line["count"]) for line in lines] == [("connections_cut_off", 1)]
    while listener.connections:
        await asyncio.sleep(0)
    async with wire(there):
        while not listener.connections:
            await asyncio.sleep(0)
    listener.stop_accepting()


@pytest.mark.parametrize(
    ("request_text", "expected"),
    [
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /livez HTTP/1.1\r\nX: " + b"x" * 9000 + b"\r\n\r\n", 431),
        (b"GET /livez HTTP/1.1\r\n" + b"X: x\r\n" * 200 + b"\r\n", 431),
    ],
    ids=["request line", "header line", "many headers"],
)
async def test_requests_have_bounds(
    server: ServerProcess, request_text: bytes, expected: int
) -> None:
    assert status(await exchange(server, request_text)) == expected


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 0\r\n",
        b"Content-Length: +0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"X: y\r\n Transfer-Encoding: chunked\r\n",
        b"X: y\n\r\n",
    ],
)
async def test_nothing_can_be_smuggled_behind_a_request(
    server: ServerProcess, headers: bytes
) -> None:
    """What a proxy in front could take for a second request is never answered as one."""
    hidden = b"0\r\n\r\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    response = await exchange(
        server, b"POST /livez HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n" + hidden
    )
    assert RESPONSES.findall(response) == [b"400"]


async def test_one_connection_answers_one_request(server: ServerProcess) -> None:
    response = await exchange(server, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
    assert RESPONSES.findall(response) == [b"200"]
    assert b"Connection: close" in response


async def test_compression_is_not_agreed_so_there_are_no_compression_bombs(
    server: ServerProcess,
) -> None:
    async with wire(server) as client:
        client.writer.write(
            HANDSHAKE + b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
            b"\r\n"
        )
        answer = await client.reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101 ")
        assert b"extensions" not in answer.lower()
        client.send(0x40 | TEXT, b"\x00")  # RSV1: "this message is compressed"
        assert await client.closed() == 1002


async def test_before_hello_a_message_may_be_no_longer_than_a_hello(server: ServerProcess) -> None:
    async with wire(server) as client:
        await client.handshake()
        size = (HELLO_BYTES_MAX + 1).to_bytes(8)
        client.writer.write(b"\x81\xff" + size + MASK)  # announced, not even sent
        assert await client.closed() == 1009


async def test_after_hello_a_message_may_be_longer(server: ServerProcess) -> None:
    async with online(server) as client:
        text = "x" * (2 * HELLO_BYTES_MAX)
        payload = REQUEST.replace(b"hello", text.encode())
        half = len(payload) // 4
        for start in range(0, len(payload), half):
            last = start + half >= len(payload)
            opcode = CONTINUATION if start else TEXT
            client.send(opcode, payload[start : start + half], fin=last)
        await client.writer.drain()
        await done_in_large_frames(client)


async def done_in_large_frames(client: Wire) -> None:
    """As `done`, for frames whose length takes eight bytes."""
    seen = b""
    while b'"done"' not in seen:
        seen = seen[-10:] + await client.reader.read(65536)
        assert seen


@pytest.mark.parametrize("payload", [b"", b" "], ids=["empty", "of a byte"])
async def test_a_message_of_endless_fragments_takes_no_more_than_its_bytes(payload: bytes) -> None:
    """In the server's own code: 20,000 parts in a list would take 0.2 or 0.8 MiB."""
    host: Any = mock.Mock(traffic=Traffic())
    transport: Any = mock.create_autospec(asyncio.Transport)
    protocol = ServerProtocol(state=State.OPEN)
    connection = Connection(host, protocol, asyncio.get_running_loop(), 60)
    connection.connection_made(transport)
    unused: Any = None
    client = Wire(unused, unused)
    connection.data_received(client.frame(TEXT, b"{", fin=False))
    fragments = client.frame(CONTINUATION, payload, fin=False) * 1000
    tracemalloc.start()
    try:
        for _ in range(20):
            connection.data_received(fragments)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 100_000


async def test_who_pings_and_reads_is_answered(server: ServerProcess) -> None:
    async with online(server) as client:
        client.writer.write(client.frame(PING, b"x") * 10_000)
        for _ in range(10_000):
            assert await client.receive() == (PONG, b"x")


async def test_unasked_pongs_are_passed_over(server: ServerProcess) -> None:
    async with online(server) as client:
        client.writer.write(client.frame(PONG, b"x") * 10_000)
        client.send(TEXT, REQUEST)
        await done(client)


async def test_a_message_that_never_ends_takes_no_more_than_a_message_may(
    server: ServerProcess,
) -> None:
    """It is not timed: a slow line is no attack, and the bound is `max_message_bytes` each."""
    async with online(server) as client:
        client.send(TEXT, b" " * 1000, fin=False)
        client.send(PING, b"still there?")
        assert await client.receive() == (PONG, b"still there?")
        part = client.frame(CONTINUATION, b" " * 60_000, fin=False)
        for _ in range(18):  # over 1 MiB
            client.writer.write(part)
        assert await client.closed() == 1009


async def test_a_token_cannot_hide_in_a_hello_of_many_frames(server: ServerProcess) -> None:
    """What is not one hello is refused before any signature is checked."""
    async with wire(server) as client:
        await client.handshake()
        hello = json.dumps({"type": "hello", "token": token()}).encode()
        client.send(TEXT, b"\n".join([hello] * 50))
        assert await client.closed() == 4500
