"""The listening sockets' connections, from TCP accept to TCP close.

    connection -> HTTP request -> routes -> a response, or the handshake -> serve(connection)

A connection has a task only until it is being served; from then on it is called.

More than `max_connections` are still told that they are too many (by `serve`), more than
`spare_connections` beyond are cut off without a word: before any byte of theirs is read.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from http import HTTPStatus
from socket import socket as Socket  # noqa: N812 - a class
from typing import Any, Final, cast

import structlog
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from protocol.codes import CloseCode
from protocol.frames import SUBPROTOCOL
from server.addresses import Proxies
from server.admission import Admission
from server.connection import HELLO_BYTES_MAX, Connection, Traffic
from server.sockets import LISTEN_BACKLOG

SPARE_CONNECTIONS: Final = 1000
"""What has no session and is not to get one: probes, logins, refusals under way, attacks."""
RESTART_REASON: Final = "restart: come back soon"
PING_SECONDS: Final = 20.0
"""A peer that was silent for so long is pinged, and cut off when it stays silent as long again."""
LOGGED_PATH_MAX: Final = 128

_log = structlog.get_logger(__name__)

Routes = Callable[[Connection, Request], Awaitable[Response | None]]
Serve = Callable[[Connection], Awaitable[None]]


class Listener:
    """All connections of this process.

    `routes` answers requests, or returns None for what may become a WebSocket; `serve` takes over
    the connections that did. A connection whose request has not come after `open_timeout_seconds`
    is cut off. `admission` says who may have more of them. `cut_off` counts those that were one too
    many.
    """

    def __init__(
        self,
        routes: Routes,
        serve: Serve,
        *,
        open_timeout_seconds: float,
        max_message_bytes: int,
        max_connections: int = 20_000,
        spare_connections: int = SPARE_CONNECTIONS,
        admission: Admission | None = None,
    ) -> None:
        self.connections: set[Connection] = set()
        self.traffic = Traffic()
        self.cut_off = 0
        self.max_message_bytes = max_message_bytes
        self._routes = routes
        self._serve = serve
        self._open_timeout_seconds = open_timeout_seconds
        self._max_sockets = max_connections + spare_connections
        self._cut_off_logged = 0
        self._admission = admission or Admission(
            time.monotonic,
            proxies=Proxies(),
            max_connections_per_address=max_connections,
            handshakes_per_second=max_connections,
        )
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self._accepting = True
        self._gone = asyncio.Event()

    async def start(self, sockets: Sequence[Socket]) -> None:
        """Accept the connections of `sockets`, which listen already."""
        for each in sockets:
            server = await self._loop.create_server(
                self._connection, sock=each, backlog=LISTEN_BACKLOG
            )
            self._servers.append(server)

    @property
    def url(self) -> str:
        """Where the WebSocket is, by the first address it listens on."""
        host, port = self._servers[0].sockets[0].getsockname()[:2]
        return f"ws://[{host}]:{port}/ws" if ":" in host else f"ws://{host}:{port}/ws"

    @property
    def port(self) -> int:
        """The port it listens on (useful when the configured one is 0)."""
        return int(self._servers[0].sockets[0].getsockname()[1])

    def stop_accepting(self) -> None:
        """Take no further connections; a WebSocket that still opens is closed with 1012."""
        self._accepting = False
        for server in self._servers:
            server.close()

    async def close_all(self, code: CloseCode, reason: str, timeout_seconds: float) -> None:
        """Close every connection and wait until they are gone; cut off who takes longer than that.

        Requests for which the answer is being made get it.
        """
        for connection in list(self.connections):
            connection.close(code, reason)
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._all_gone()
        except TimeoutError:
            for connection in list(self.connections):
                connection.abort()
            await self._all_gone()

    async def _all_gone(self) -> None:
        while self.connections:
            self._gone.clear()
            await self._gone.wait()

    def sweep(self) -> None:
        """Ping who was silent, cut off who stays silent; called every second."""
        if count := self.cut_off - self._cut_off_logged:
            _log.warning("connections_cut_off", count=count, open=len(self.connections))
            self._cut_off_logged = self.cut_off
        now = self._loop.time()
        for connection in list(self.connections):
            silent_seconds = now - connection.seen_at
            if silent_seconds < PING_SECONDS or not connection.open:
                continue
            if not connection.pinged:
                connection.ping()
            elif silent_seconds > 2 * PING_SECONDS:
                reason = "keepalive: no answer to a ping"
                _log.info(
                    "closing",
                    connection=connection.id,
                    code=int(CloseCode.INTERNAL_ERROR),
                    reason=reason,
                )
                connection.close(CloseCode.INTERNAL_ERROR, reason)

    # For connections

    def connected(self, connection: Connection) -> None:
        """Cut `connection` off when its address has far too many already."""
        if not self._admission.enter(connection):
            connection.abort()

    def requested(self, connection: Connection, request: Request) -> None:
        """Answer `request` in a task of its own: it may ask for keys or users."""
        self._admission.identify(connection, request.headers.get_all("X-Forwarded-For"))
        self._spawn(self._answer(connection, request))

    def lost(self, connection: Connection) -> None:
        """Forget `connection`."""
        self.connections.discard(connection)
        self._admission.leave(connection)
        if not self.connections:
            self._gone.set()

    def _connection(self) -> asyncio.Protocol:
        if len(self.connections) >= self._max_sockets:
            self.cut_off += 1
            return _CutOff()
        protocol = _Protocol(max_size=min(HELLO_BYTES_MAX, self.max_message_bytes))
        connection = Connection(self, protocol, self._loop, self._open_timeout_seconds)
        self.connections.add(connection)
        return connection

    async def _answer(self, connection: Connection, request: Request) -> None:
        try:
            response = await self._routes(connection, request)
        except Exception:
            # Not the query: it may hold what was meant for nobody's eyes.
            path = request.path.partition("?")[0][:LOGGED_PATH_MAX]
            _log.exception("http_failed", connection=connection.id, path=path)
            text = "the server failed, its log says why\n"
            response = connection.reject(HTTPStatus.INTERNAL_SERVER_ERROR, text)
        if response is None and connection.early:
            text = "wait for the answer to the handshake before you send more\n"
            response = connection.reject(HTTPStatus.BAD_REQUEST, text)
        if response is None:
            response = connection.accept(request)
        connection.respond(response)
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            return
        if not self._accepting:
            # Not before: no browser could tell that from a failure.
            connection.close(CloseCode.RESTART, RESTART_REASON)
        else:
            try:
                await self._serve(connection)
            except Exception:
                _log.exception("connection_failed", connection=connection.id)
                connection.close(CloseCode.INTERNAL_ERROR, "internal error")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_end)

    def _on_end(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("connection_failed", exc_info=error)


class _CutOff(asyncio.Protocol):
    """A connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).abort()


class _Protocol(ServerProtocol):
    """The library's, with two differences."""

    def select_subprotocol(self, subprotocols: Sequence[Subprotocol]) -> Subprotocol | None:
        """Speak `queuesystem.v1` to who offers it, and to who offers nothing (simple tools).

        A method, since a function given to the library becomes one that refers back to it.
        """
        return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in subprotocols else None

    def recv_frame(self, frame: Frame) -> None:
        """Take a close frame inside a fragmented message for what it is (RFC 6455 section 5.4)."""
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None  # the message will not be completed
        super().recv_frame(frame)
