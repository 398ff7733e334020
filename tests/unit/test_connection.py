"""One connection on a transport that is a list: what it holds back, and what it keeps."""

import asyncio
import tracemalloc
from http import HTTPStatus
from typing import Any

import pytest
from websockets.http11 import Request
from websockets.server import ServerProtocol

from protocol.codes import CloseCode
from scripts.bench.framing import CLOSE, CONTINUATION, PING, PONG, TEXT
from server.connection import Connection, Traffic
from tests.network.wire import frame, request

END = b""
"""The end of the stream, in what is written."""


class ListTransport:
    """Takes what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closing = False

    def is_closing(self) -> bool:
        return self.closing

    def set_write_buffer_limits(self, high: int) -> None:
        """Every test says itself when it is full."""

    def write(self, data: bytes) -> None:
        assert END not in self.written
        self.written.append(data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.written.append(END)

    def get_extra_info(self, name: str) -> None:
        """Know nothing."""


class Host:
    """Accepts every handshake, at once or later."""

    def __init__(self) -> None:
        self.later = False
        self.traffic = Traffic()

    max_message_bytes = 2**20

    def connected(self, connection: Connection) -> None:
        """Turn nobody away."""

    def requested(self, connection: Connection, request: Request) -> None:
        if not self.later:
            connection.respond(connection.accept(request))

    def lost(self, connection: Connection) -> None:
        """Forget nothing."""


class Receiver:
    """Keeps what comes."""

    def __init__(self) -> None:
        self.messages: list[str | bytes] = []

    def take(self, message: str | bytes) -> None:
        self.messages.append(message)

    def resumed(self) -> None:
        """Have nothing to write."""

    def lost(self) -> None:
        """Have nothing to tidy up."""


@pytest.fixture
async def transport() -> ListTransport:
    return ListTransport()


@pytest.fixture
async def receiver() -> Receiver:
    return Receiver()


def make(host: Host, transport: Any) -> Connection:
    """Return a connection on which nothing was said yet."""
    protocol = ServerProtocol(max_size=2**20)
    connection = Connection(host, protocol, asyncio.get_running_loop(), 60.0)
    connection.connection_made(transport)
    return connection


@pytest.fixture
async def connection(transport: Any, receiver: Receiver) -> Any:
    connection = make(Host(), transport)
    connection.data_received(request())
    connection.listen(receiver)
    transport.written.clear()
    yield connection
    connection.connection_lost(None)


async def test_empty_fragments_without_end_take_no_memory(
    connection: Connection, receiver: Receiver
) -> None:
    connection.data_received(frame(TEXT, b"a", fin=False))
    fragments = frame(CONTINUATION, fin=False) * 1000
    connection.data_received(fragments)
    tracemalloc.start()
    for _ in range(20):
        connection.data_received(fragments)
    kept_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept_bytes < 20_000  # of 20,000 fragments
    connection.data_received(frame(CONTINUATION, b"b"))
    assert receiver.messages == ["ab"]


async def test_a_peer_that_lets_data_wait_gets_the_last_pong_only(
    connection: Connection, transport: ListTransport
) -> None:
    connection.pause_writing()
    for number in range(100):
        connection.data_received(frame(PING, b"%d" % number))
    assert transport.written == []
    connection.resume_writing()
    connection.resume_writing()
    assert transport.written == [frame(PONG, b"99", mask=None)]


async def test_a_peer_that_reads_gets_every_pong(
    connection: Connection, transport: ListTransport
) -> None:
    connection.data_received(frame(PING, b"1") + frame(PING, b"2"))
    assert transport.written == [frame(PONG, b"1", mask=None), frame(PONG, b"2", mask=None)]


async def test_no_pong_comes_behind_the_close_frame(
    connection: Connection, transport: ListTransport
) -> None:
    connection.pause_writing()
    connection.data_received(frame(PING, b"1") + frame(CLOSE))
    connection.resume_writing()
    assert transport.written == [frame(CLOSE, mask=None), END]


@pytest.mark.parametrize("path", ["/ws", "/livez"])
async def test_an_answer_that_comes_after_the_peer_has_ended_is_not_written(
    transport: ListTransport, path: str
) -> None:
    host = Host()
    host.later = True
    connection = make(host, transport)
    connection.data_received(request(line=f"GET {path} HTTP/1.1"))
    connection.eof_received()
    transport.closing = True  # as transports do then
    assert connection.request is not None
    if path == "/ws":
        connection.respond(connection.accept(connection.request))
    else:
        connection.respond(connection.reject(HTTPStatus.OK, "live"))
    assert b"".join(transport.written) == b""
    connection.connection_lost(None)


class PausableTransport(ListTransport):
    """Knows whether it reads."""

    reads = True

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


async def test_a_refused_peer_that_said_goodbye_at_once_is_heard_to_its_end() -> None:
    """Or its connection would stay until it is cut off: what came early had stopped the reading."""
    transport = PausableTransport()
    connection = make(Host(), transport)
    connection.data_received(request())
    connection.data_received(frame(TEXT, b"{}") + frame(CLOSE))
    assert await connection.message() == "{}"
    assert not transport.reads
    connection.close(CloseCode.PROTOCOL_ERROR, "bad_frame")
    assert transport.reads
    connection.connection_lost(None)
