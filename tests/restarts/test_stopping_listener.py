"""What becomes of connections of every age when their server stops."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

import pytest
from websockets.http11 import Request, Response

from protocol.codes import CloseCode
from server import connection as connection_module
from server.connection import Connection
from server.listener import RESTART_REASON, Listener
from server.sockets import listen
from tests.network.wire import Wire, request

LONG = 3600.0
"""Longer than the test may take: whoever waits for so long fails it."""
TURNS = 10
"""So many turns of the loop, and what is to be cut off at once is cut off."""
GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Stage:
    """A listener whose routes wait for `gate`; `asked` is set when there is a request."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.gate = asyncio.Event()
        self.served = asyncio.Event()
        self.listener = Listener(
            self._route, self._serve, open_timeout_seconds=LONG, max_message_bytes=1000
        )

    async def _route(self, connection: Connection, request: Request) -> Response | None:
        self.asked.set()
        await self.gate.wait()
        return None if request.path == "/ws" else connection.reject(HTTPStatus.OK, "alive\n")

    async def _serve(self, _: Connection) -> None:
        self.served.set()

    async def connected(self) -> Wire:
        """Return a client that the listener has accepted."""
        before = len(self.listener.connections)
        client = Wire(*await asyncio.open_connection("127.0.0.1", self.listener.port))
        while len(self.listener.connections) == before:
            await asyncio.sleep(0)
        return client

    def stop(self, timeout_seconds: float = LONG) -> "asyncio.Task[None]":
        """Begin to stop as the server does."""
        self.listener.stop_accepting()
        stopping = self.listener.close_all(CloseCode.RESTART, RESTART_REASON, timeout_seconds)
        return asyncio.create_task(stopping)


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    await made.listener.start(listen("127.0.0.1", 0))
    yield made
    made.listener.stop_accepting()
    await made.listener.close_all(CloseCode.RESTART, "", 0)


async def test_a_request_under_way_gets_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "ARRIVAL_SECONDS", 0.0)
    async with stage() as on:
        client = await on.connected()
        client.write(GET)
        await on.asked.wait()
        stopping = on.stop()
        for _ in range(TURNS):
            await asyncio.sleep(0)
        on.gate.set()
        assert (await client.reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
        client.writer.close()
        await stopping


async def test_a_request_that_comes_right_behind_its_connection_gets_its_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_module, "ARRIVAL_SECONDS", LONG)
    async with stage() as on:
        on.gate.set()
        client = await on.connected()
        stopping = on.stop()
        await asyncio.sleep(0)
        client.write(GET)
        assert (await client.reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
        client.writer.close()
        await stopping


async def test_a_connection_that_asks_for_nothing_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_module, "ARRIVAL_SECONDS", 0.0)
    async with stage() as on:
        client = await on.connected()
        await on.stop()
        assert await client.reader.read() == b""
        client.writer.close()


async def test_a_websocket_that_opens_meanwhile_is_closed_with_1012() -> None:
    async with stage() as on:
        client = await on.connected()
        client.write(request())
        await on.asked.wait()
        stopping = on.stop()
        await asyncio.sleep(0)
        on.gate.set()
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        closing = await client.receive()
        assert closing.close_code == CloseCode.RESTART
        assert not on.served.is_set()
        client.writer.close()
        await stopping


async def test_a_client_that_does_not_answer_the_close_frame_is_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_module, "CLOSE_SECONDS", LONG)
    async with stage() as on:
        on.gate.set()
        client = await on.connected()
        client.write(request())
        await client.reader.readuntil(b"\r\n\r\n")
        await on.served.wait()
        await on.stop(timeout_seconds=0.01)
        assert not on.listener.connections
        client.writer.close()
