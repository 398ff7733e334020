"""The opening handshake (RFC 6455 section 4) and what is no handshake: every answer is HTTP.

Whatever comes, the server answers or ends the connection, and its log complains of nothing.
"""

import asyncio
import socket
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from hashlib import sha1
from typing import Any

import pytest

from scripts.bench.framing import PING, TEXT
from tests.network.conftest import complaints
from tests.network.wire import KEY, dialled, frame, request
from tests.raw import online
from tests.server_process import ServerProcess, token

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
ACCEPT = b64encode(sha1(f"{KEY}{GUID}".encode(), usedforsecurity=False).digest()).decode()
"""What answers KEY (RFC 6455 section 4.2.2)."""


@pytest.fixture(autouse=True)
def uncomplaining(server: ServerProcess) -> Any:
    yield
    assert complaints(server) == []


@pytest.fixture
async def bystander(server: ServerProcess) -> AsyncIterator[Any]:
    """A client that was there before, and is served afterwards."""
    async with online(server.url, token=token("bystander")) as client:
        yield client
        await client.request("still served", params={"text": "x"})
        await client.next("done", "still served")


async def answer(server: ServerProcess, *packets: bytes, pause: bool = False) -> bytes:
    """Send `packets`; return all that comes. A WebSocket that opens is left at once."""
    async with dialled(server.port) as wire:
        for packet in packets:
            wire.write(packet)
            await wire.writer.drain()
            if pause:
                await asyncio.sleep(0.01)
        head = await wire.reader.readuntil(b"\r\n\r\n")
        return head if head.startswith(b"HTTP/1.1 101 ") else head + await wire.rest()


def status(response: bytes) -> int:
    assert response.startswith(b"HTTP/1.1 ")
    return int(response.split(b" ", 2)[1])


def headers(response: bytes) -> dict[str, str]:
    lines = response.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


# Accepted


async def test_the_answer_is_that_of_the_standard(server: ServerProcess) -> None:
    response = await answer(server, request())
    assert status(response) == 101
    fields = headers(response)
    assert fields["upgrade"].lower() == "websocket"
    assert fields["connection"].lower() == "upgrade"
    assert fields["sec-websocket-accept"] == ACCEPT
    assert "sec-websocket-extensions" not in fields
    assert "sec-websocket-protocol" not in fields


@pytest.mark.parametrize(
    "changed",
    [
        {"Upgrade": "WebSocket"},
        {"Connection": "keep-alive, Upgrade"},
        {"Connection": "UPGRADE"},
        {"Connection": None, "connection": "upgrade"},
        {"Host": None, "HOST": "x:1"},
        {"Upgrade": None, "uPGRADE": "websocket"},
        {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"},
        {"Sec-WebSocket-Extensions": "x-unknown; a=1, x-other"},
        {"Content-Length": "0"},
        {"Cookie": "a=b; " * 500},
        {"X-Obs-Text": "\u00fc"},
        {f"X-Padding-{n}": "x" for n in range(100)},
    ],
    ids=lambda changed: ",".join(list(changed)[:2]),
)
async def test_what_the_standard_allows_is_accepted(
    server: ServerProcess, changed: dict[str, str | None]
) -> None:
    response = await answer(server, request(changed))
    assert status(response) == 101
    assert "sec-websocket-extensions" not in headers(response)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["queuesystem.v1"], "queuesystem.v1"),
        (["chat", "queuesystem.v1"], "queuesystem.v1"),
        (["queuesystem.v1, chat"], "queuesystem.v1"),
        (["chat"], None),
        (["QUEUESYSTEM.V1"], None),
    ],
)
async def test_the_subprotocol_is_agreed_or_left_out(
    server: ServerProcess, offered: list[str], chosen: str | None
) -> None:
    lines = "".join(f"Sec-WebSocket-Protocol: {one}\r\n" for one in offered).encode()
    response = await answer(server, with_lines(lines))
    assert status(response) == 101
    assert headers(response).get("sec-websocket-protocol") == chosen


def with_lines(lines: bytes) -> bytes:
    """Return a good handshake with more header lines."""
    return request().replace(b"\r\n\r\n", b"\r\n" + lines + b"\r\n")


async def test_a_handshake_may_come_byte_by_byte(server: ServerProcess) -> None:
    async with dialled(server.port) as wire:
        await wire.write_in_chops(request(), 1)
        assert status(await wire.reader.readuntil(b"\r\n\r\n")) == 101


# Refused


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"Upgrade": None}, 426),
        ({"Upgrade": "h2c"}, 426),
        ({"Upgrade": "websocket, h2c"}, 426),
        ({"Upgrade": "web socket"}, 400),
        ({"Connection": None}, 426),
        ({"Connection": "keep-alive"}, 426),
        ({"Connection": "close"}, 426),
        ({"Host": None}, 400),
        ({"Sec-WebSocket-Key": None}, 400),
        ({"Sec-WebSocket-Key": ""}, 400),
        ({"Sec-WebSocket-Key": "c2hvcnQ="}, 400),
        ({"Sec-WebSocket-Key": KEY + "AAAA"}, 400),
        ({"Sec-WebSocket-Key": "!" * 24}, 400),
        ({"Sec-WebSocket-Key": "\u00fc" * 24}, 400),
        ({"Sec-WebSocket-Version": None}, 400),
        ({"Sec-WebSocket-Protocol": ",;,"}, 400),
        ({"Content-Length": "5"}, 400),
        ({"Transfer-Encoding": "chunked"}, 400),
        ({"Authorization": "Bearer nonsense"}, 401),
    ],
    ids=str,
)
async def test_what_is_missing_or_wrong_is_refused(
    server: ServerProcess, changed: dict[str, str | None], expected: int
) -> None:
    assert status(await answer(server, request(changed))) == expected


@pytest.mark.parametrize("version", ["8", "0", "14", "13.0", "thirteen", "13, 8", ""])
async def test_another_version_is_told_the_right_one(server: ServerProcess, version: str) -> None:
    response = await answer(server, request({"Sec-WebSocket-Version": version}))
    assert status(response) == 426
    assert headers(response)["sec-websocket-version"] == "13"


@pytest.mark.parametrize(
    "name", ["Host", "Origin", "Authorization", "Sec-WebSocket-Key", "Sec-WebSocket-Version"]
)
async def test_a_header_that_may_come_once_is_refused_twice(
    server: ServerProcess, name: str
) -> None:
    value = {"Sec-WebSocket-Key": KEY, "Sec-WebSocket-Version": "13"}.get(name, "x")
    twice = f"{name}: {value}\r\n" * (1 if name in request().decode() else 2)
    assert status(await answer(server, with_lines(twice.encode()))) == 400


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("POST /ws HTTP/1.1", 405),
        ("HEAD /ws HTTP/1.1", 405),
        ("CONNECT /ws HTTP/1.1", 405),
        ("get /ws HTTP/1.1", 405),
        ("GET /ws HTTP/1.0", 505),
        ("GET /ws HTTP/2.0", 400),
        ("GET /ws HTTP/0.9", 400),
        ("GET /ws", 400),
        ("GET", 400),
        ("GET  /ws HTTP/1.1", 400),
        ("GET /ws HTTP/1.1 ", 400),
        (" GET /ws HTTP/1.1", 400),
        ("PRI * HTTP/2.0", 400),
        ("GET /other HTTP/1.1", 404),
        ("GET //ws HTTP/1.1", 404),
        ("GET /ws/ HTTP/1.1", 404),
        ("GET http://[::1/ws HTTP/1.1", 400),
        ("GET /ws?token=x HTTP/1.1", 400),
        ("GET /w\u00fcs HTTP/1.1", 400),
        ("GET /" + "x" * 9000 + " HTTP/1.1", 414),
        ("G" * 9000, 414),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_a_wrong_request_line_is_refused(
    server: ServerProcess, line: str, expected: int
) -> None:
    assert status(await answer(server, request(line=line))) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (b"X-Folded: a\r\n b\r\n", 400),
        (b"X-Long: " + b"x" * 9000 + b"\r\n", 431),
        (b"X: y\r\n" * 200, 431),
        (b"no colon\r\n", 400),
        (b": no name\r\n", 400),
        (b"X y: z\r\n", 400),
        (b"X : z\r\n", 400),
        (b"X: a\x00b\r\n", 400),
        (b"X: a\rb\r\n", 400),
        (b"X: only a line feed\n", 400),
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_a_malformed_header_is_refused(
    server: ServerProcess, lines: bytes, expected: int
) -> None:
    assert status(await answer(server, with_lines(lines))) == expected


async def test_lines_that_end_without_a_carriage_return_are_refused(server: ServerProcess) -> None:
    assert status(await answer(server, request().replace(b"\r\n", b"\n"))) == 400


# Too early


@pytest.mark.parametrize("pause", [False, True], ids=["one packet", "two packets"])
@pytest.mark.parametrize(
    "more",
    [frame(TEXT, b"{}"), frame(PING), frame(TEXT, b"{}")[:3], b"\xff\xff\xff", b"\r\n", request()],
    ids=["message", "ping", "part of a frame", "nonsense", "newline", "second handshake"],
)
async def test_what_comes_before_the_answer_is_refused(
    server: ServerProcess, more: bytes, pause: bool
) -> None:
    good = request({"Authorization": f"Bearer {token()}"})
    if pause:  # the end of the handshake and what follows, behind the rest
        response = await answer(server, good[:-2], good[-2:] + more, pause=True)
    else:
        response = await answer(server, good + more)
    assert status(response) == 400
    assert b"wait for the answer" in response


# No WebSocket, no HTTP


async def test_of_pipelined_requests_the_first_is_answered_and_the_last_of_the_connection(
    server: ServerProcess,
) -> None:
    probe = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n"
    response = await answer(server, probe * 5)
    assert status(response) == 200
    assert headers(response)["connection"] == "close"
    assert response.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    "nonsense",
    [
        bytes(100),
        b"\xff" * 100,
        b"\r\n" * 100,
        b"\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        frame(TEXT, b'{"type":"hello"}'),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x55" * 400,
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n",
    ],
    ids=["zeros", "ones", "newlines", "newline", "ssh", "redis", "frame", "tls", "proxy"],
)
async def test_what_is_no_http_is_answered_at_once(server: ServerProcess, nonsense: bytes) -> None:
    assert status(await answer(server, nonsense)) == 400


async def test_a_tls_client_learns_that_this_is_not_tls(
    server: ServerProcess, bystander: Any
) -> None:
    del bystander
    context = ssl.create_default_context()

    def shake_hands() -> None:
        with (
            socket.create_connection(("127.0.0.1", server.port)) as plain,
            context.wrap_socket(plain, server_hostname="localhost"),
        ):
            pass

    with pytest.raises(ssl.SSLError, match=r"(?i)wrong.version"):
        await asyncio.to_thread(shake_hands)
