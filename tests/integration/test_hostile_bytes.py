"""Bytes that no good client sends: they are answered or dropped, cost little, and nothing fails."""

import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts.bench.framing import CLOSE, FIN, PING, TEXT, frame
from tests.integration.conftest import SMALL
from tests.server_process import ServerProcess

MIB = 2**20
HELLO = b'{"type":"hello"}'
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with small limits, in whose log nothing has failed when all is over."""
    server = ServerProcess(tmp_path_factory.mktemp("server"), **SMALL)
    server.start()
    yield server
    server.close()
    failed = [line for line in server.log.read_text().split("\n") if "Traceback" in line]
    assert not failed, failed[0]


def answer(server: ServerProcess, data: bytes) -> bytes:
    """Send `data` on a new connection; return what comes until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(data)
        received = b""
        while piece := connection.recv(65536):
            received += piece
        return received


@contextmanager
def open_websocket(server: ServerProcess) -> Iterator[socket.socket]:
    """Make a handshake and say nothing yet."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(HANDSHAKE)
        assert connection.recv(4096).startswith(b"HTTP/1.1 101 ")
        yield connection


def memory_bytes(server: ServerProcess) -> int:
    """Return how much memory the server has (Linux)."""
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


@pytest.mark.parametrize("path", ["//[", "http://[x/ws", "//]@/ws"])
def test_a_path_that_is_no_url_is_a_bad_request(server: ServerProcess, path: str) -> None:
    received = answer(server, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert received.startswith(b"HTTP/1.1 400 ")
    assert b"the path cannot be read" in received


def test_a_login_that_is_not_even_ascii_is_refused(server: ServerProcess) -> None:
    login = b"POST /token HTTP/1.1\r\nHost: x\r\nAuthorization: Basic \xc3\xa9\r\n\r\n"
    assert answer(server, login).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(
    "early",
    [
        bytes((FIN | TEXT, len(HELLO))) + HELLO,
        frame(TEXT, HELLO),
        frame(PING, b"early"),
        frame(CLOSE, b"\x03\xe8"),
        b"\xff" * 20,
        HANDSHAKE,
    ],
    ids=["unmasked", "masked", "ping", "close", "garbage", "twice"],
)
def test_who_does_not_wait_for_the_handshake_is_refused(
    server: ServerProcess, early: bytes
) -> None:
    received = answer(server, HANDSHAKE + early)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert b"wait for the answer" in received


def test_pings_of_a_peer_that_reads_no_pongs_do_not_pile_up(server: ServerProcess) -> None:
    pings = frame(PING, bytes(125)) * 512
    with open_websocket(server) as connection:
        connection.setblocking(False)
        before = memory_bytes(server)
        sent = 0
        while sent < 48 * MIB:
            select.select([], [connection], [], 10)
            sent += connection.send(pings[sent % len(pings) :])
        assert memory_bytes(server) - before < 16 * MIB
