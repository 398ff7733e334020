"""The asyncio client: a session that outlives its connections.

    async with connect(url, token=token) as session:
        async for word in session.request("words", text="to be or not"):
            print(word)
        total = await session.request("echo", text="x")

    while not closed: dial -> hello -> welcome -> read and write until the connection is gone

A lost connection or a restarted server is no error: the session is resumed, requests that never
arrived are sent again, none runs twice for that, results go on where they were. What can be
decided without I/O is in client_rules.py; how results are handed out, in client_handle.py.
"""

import asyncio
import inspect
import logging
import random
import secrets
import ssl
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, Literal, NoReturn

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from protocol.client_call import Call
from protocol.client_errors import (
    RESULTS_CHANGED,
    RESULTS_LOST,
    SESSION_LOST,
    ClientError,
    ConnectionFailed,
    RequestFailed,
    TooManyRequests,
)
from protocol.client_handle import Item, RequestHandle, Restarted
from protocol.client_link import TOKENS_REFUSED_MAX, Loss, Patience, dial, greet, loss_of
from protocol.client_rules import Rules
from protocol.codec import decode_server_message
from protocol.frames import ClientInfo, Welcome

__all__ = [
    "RESULTS_CHANGED",
    "RESULTS_LOST",
    "SESSION_LOST",
    "ClientError",
    "ClientInfo",
    "ConnectionFailed",
    "Item",
    "RequestFailed",
    "RequestHandle",
    "Restarted",
    "Session",
    "TooManyRequests",
    "connect",
]

TokenSource = str | Callable[[], str | Awaitable[str]]
State = Literal["connecting", "online", "offline", "closed"]

CLOSE_SECONDS: Final = 5.0
"""How long leaving waits for the server to take its leave."""
STALL_SECONDS: Final = 10.0
"""A session that reads nothing for so long because results are not taken says so in the log."""
REFRESH_AGAIN_SECONDS: Final = 30.0
"""The wait before a refresh when, by this clock, the token has expired although it is taken."""

_log = logging.getLogger(__name__)


@asynccontextmanager
async def connect(
    url: str,
    *,
    token: TokenSource,
    resume: str | None = None,
    connect_timeout_seconds: float = 10.0,
    give_up_after_seconds: float = 600.0,
    buffer_bytes: int = 16 * 2**20,
    max_message_bytes: int = 64 * 2**20,
    tls: ssl.SSLContext | None = None,
    client: ClientInfo | None = None,
) -> AsyncGenerator["Session"]:
    """Open a session, and end it when the block is left.

    `token` is a JWT or a function (async or not, it must not block) that returns one: it is
    called for each connection, and again before the token expires. `resume` takes over the
    session of that id, see `Session.detach`. After `connect_timeout_seconds` without a first
    connection, and `give_up_after_seconds` without a later one, it gives up.

    When results of `buffer_bytes` wait to be taken, nothing more is read until half of them are,
    and the server holds its handler back. So take the results of requests in their order, or at
    the same time. When nobody takes any for long, the server drops the connection, and runs on
    until the results exceed its own bounds. `max_message_bytes` is the largest message that is
    read at all; it must hold the largest single result.

    Leaving the block ends the session: requests the server accepted still run, their results are
    not kept, requests that wait on this side are not sent. So wait for what matters.

    Raises ConnectionFailed.
    """
    session = Session(
        url,
        token,
        resume=resume,
        connect_timeout_seconds=connect_timeout_seconds,
        give_up_after_seconds=give_up_after_seconds,
        buffer_bytes=buffer_bytes,
        max_message_bytes=max_message_bytes,
        tls=tls,
        client=client,
    )
    try:
        await session.open()
        yield session
    finally:
        await session.close()


class Session:
    """A session with a server; made by `connect`.

    Requests run in the order of `request` and `submit`, one at a time. A request the server
    refuses for now (`window_exceeded`, `rate_limited`, `journal_unavailable`, `overloaded`) is
    sent again by itself; those that were on their way behind it may overtake it, later ones not.
    """

    def __init__(
        self,
        url: str,
        token: TokenSource,
        *,
        resume: str | None,
        connect_timeout_seconds: float,
        give_up_after_seconds: float,
        buffer_bytes: int,
        max_message_bytes: int,
        tls: ssl.SSLContext | None,
        client: ClientInfo | None,
    ) -> None:
        self.url = url
        self.requests: dict[str, RequestHandle] = {}
        """The requests that were found in a session taken over by `resume`, by id."""
        self.reconnects = 0
        """How often it was connected again."""
        self._token = token
        self._max_message_bytes = max_message_bytes
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._rules = Rules(
            prefix=secrets.token_hex(4),
            random=random.random,
            client=client or ClientInfo("queuesystem-python", _version()),
            resume=resume,
            buffer_bytes=buffer_bytes,
        )
        self._patience = Patience(
            now=self._loop.time(),
            first_seconds=connect_timeout_seconds,
            later_seconds=give_up_after_seconds,
            tokens=2 if isinstance(token, str) else TOKENS_REFUSED_MAX,
            random=random.random,
        )
        self._state: State = "connecting"
        self._failure: ConnectionFailed | None = None
        self._closing = False
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._task: asyncio.Task[None] | None = None
        self._connection: ClientConnection | None = None
        self._wake_writer = asyncio.Event()
        self._room = asyncio.Event()
        self._ready: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._refresh_timer: asyncio.TimerHandle | None = None
        self._refresh_task: asyncio.Task[None] | None = None
        self._expires_at = 0.0

    # What users do

    @property
    def id(self) -> str:
        """The server's name of the session; it changes when the server lost the session."""
        return self._rules.session or ""

    @property
    def state(self) -> State:
        """Where it stands: connecting for the first time, online, offline for now, or closed."""
        return self._state

    def request(self, method: str, /, **params: Any) -> RequestHandle:
        """Send a request with these params; see `submit`."""
        return self.submit(method, params)

    def submit(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,  # noqa: A002 - the wire's name
        timeout: float | None = None,
        on_disconnect: Literal["continue", "cancel"] = "continue",
    ) -> RequestHandle:
        """Put a request at the end of the line and return at once.

        `id` (1-128 characters) names it; use no name twice in a session. `timeout` (seconds)
        counts from the start of its handler. With `on_disconnect="cancel"` a lost connection
        cancels it.

        Raises TooManyRequests when 10,000 requests are unfinished (see `ready`), ConnectionFailed
        when the session is closed, ValueError for an id of an unfinished request, and TypeError
        or ValueError for params that JSON cannot hold.
        """
        self._check_open()
        call = self._rules.submit(
            method, {} if params is None else params, id, timeout, on_disconnect
        )
        self._wake_writer.set()
        return RequestHandle(call, self._cancel)

    async def ready(self) -> None:
        """Wait until fewer requests are unfinished than the server's window holds.

        Await it before each request of a long series, and the series needs little memory. Raises
        ConnectionFailed.
        """
        self._check_open()
        while not self._rules.has_room:
            future = self._loop.create_future()
            self._ready.append(future)
            await future
            self._check_open()

    async def detach(self) -> str:
        """Leave the session without ending it; return its id, for `connect(resume=id)`.

        Accepted requests run on and their results wait on the server. What has arrived here is
        acknowledged: it can be taken from its handle, but not again after resuming. Requests
        that were not accepted yet may be lost.
        """
        session_id = self.id
        connection = self._connection
        if self._closing:
            return session_id
        self._closing = True
        try:
            if connection is not None:
                self._room.set()
                self._rules.acknowledge()
                with suppress(ConnectionClosed):
                    while message := self._rules.take():
                        await connection.send(message, text=True)
                await connection.close()
        finally:
            await self._stop("the session was detached: resume it to go on")
        return session_id

    async def close(self, *, cancel: bool = False) -> None:
        """End the session; with `cancel`, its requests too. Does nothing when it is closed."""
        if self._closing:
            return
        self._closing = True
        try:
            if self._connection is not None and self._task is not None:
                self._rules.bye(cancel=cancel)
                self._wake_writer.set()
                self._room.set()
                await asyncio.wait([self._task], timeout=CLOSE_SECONDS)
        finally:
            await self._stop("the session was closed")

    def _check_open(self) -> None:
        if self._failure is not None:
            raise ConnectionFailed(str(self._failure), self._failure.code)
        if self._closing:
            raise ConnectionFailed("the session is closed")

    def _cancel(self, call: Call) -> None:
        self._rules.cancel(call)
        self._wake_writer.set()
        self._offer_room()

    # The life of the session

    async def open(self) -> None:
        """Connect for the first time. Raises ConnectionFailed."""
        self._task = asyncio.create_task(self._run(), name="queuesystem-session")
        await self._opened

    async def _run(self) -> None:
        try:
            while True:
                try:
                    await self._visit()
                except Loss as loss:
                    if self._closing:
                        return
                    wish = self._rules.reconnect_after_seconds
                    self._rules.reconnect_after_seconds = None
                    delay = self._patience.after(loss, self._loop.time(), wish)
                    _log.info("%s: %s; again in %.2f s", self.url, loss, delay)
                await asyncio.sleep(delay)
        except ConnectionFailed as error:
            self._fail(error)
        except Exception as error:
            _log.exception("the client failed")
            self._fail(ConnectionFailed(f"the client failed: {error!r}"))

    async def _visit(self) -> NoReturn:
        """Connect, and stay until the connection is gone. Raises Loss and ConnectionFailed."""
        connection: ClientConnection | None = None
        try:
            async with asyncio.timeout(self._patience.left(self._loop.time())):
                token = await self._fetch_token()
                connection = await dial(
                    self.url, max_message_bytes=self._max_message_bytes, tls=self._tls
                )
                welcome, frames = await greet(connection, self._rules.hello(token))
            self._welcomed(connection, welcome)
            self._rules.receive(frames, self._loop.time())
            await self._serve(connection)
        except (ConnectionClosed, OSError) as error:
            raise loss_of(error) from error
        finally:
            if connection is not None:
                connection.transport.abort()  # does nothing to one that is closed already

    def _welcomed(self, connection: ClientConnection, welcome: Welcome) -> None:
        now = self._loop.time()
        for call in self._rules.welcome(welcome, now):
            self.requests[call.id] = RequestHandle(call, self._cancel)
        self._patience.welcomed(now)
        self._connection = connection
        self._state = "online"
        if self._opened.done():
            self.reconnects += 1
        else:
            self._opened.set_result(None)

    async def _serve(self, connection: ClientConnection) -> NoReturn:
        """Read and write. Raises ConnectionClosed when the connection is gone."""
        writer = asyncio.create_task(self._write(connection), name="queuesystem-writer")
        try:
            await self._read(connection)
        finally:
            self._connection = None
            self._state = "offline"
            self._rules.lost()
            connection.transport.abort()
            self._wake_writer.set()
            await writer

    async def _read(self, connection: ClientConnection) -> NoReturn:
        rules = self._rules
        buffer = rules.buffer
        time_of_loop = self._loop.time
        while True:
            self._after_frames()
            if buffer.full and not self._closing:
                await self._wait_for_room()
            message = await connection.recv(decode=False)
            rules.receive(decode_server_message(message), time_of_loop())

    def _after_frames(self) -> None:
        """Do what frames of the server may have made necessary."""
        if self._rules.has_output:
            self._wake_writer.set()
        self._arm()
        self._offer_room()
        if self._rules.expires_at != self._expires_at:
            self._plan_refresh()

    async def _write(self, connection: ClientConnection) -> None:
        """Send what there is, joined, whenever there is something; until offline or `bye`."""
        rules = self._rules
        wake = self._wake_writer
        wake.set()
        try:
            while rules.online:
                await wake.wait()
                wake.clear()
                while message := rules.take():
                    await connection.send(message, text=True)
        except ConnectionClosed:
            pass  # the reader sees it too, and says why
        except BaseException:
            connection.transport.abort()  # the reader shall not go on alone
            raise

    async def _wait_for_room(self) -> None:
        """Wait until results were taken."""
        self._room.clear()
        # Handles are also thrown away, by the garbage collector and so on any thread.
        self._rules.buffer.on_room = self._signal_room
        try:
            async with asyncio.timeout(STALL_SECONDS):
                await self._room.wait()
        except TimeoutError:
            _log.warning(
                "session %s reads nothing: %d bytes of results are not taken. Take the results of "
                "its requests in their order, or at the same time",
                self.id,
                self._rules.buffer.size_bytes,
            )
            await self._room.wait()

    def _signal_room(self) -> None:
        self._loop.call_soon_threadsafe(self._room.set)

    def _offer_room(self) -> None:
        """Let as many go on who wait in `ready` as there is room for."""
        waiting = self._ready
        if waiting:
            room = self._rules.limits.window - len(self._rules.calls)
            while waiting and room > 0:
                future = waiting.popleft()
                if not future.done():
                    future.set_result(None)
                    room -= 1

    # Time

    def _arm(self) -> None:
        """Have the rules' `tick` called when it is due."""
        deadline = self._rules.deadline
        if deadline is None:
            return
        if self._timer is not None:
            if self._timer_at <= deadline:
                return
            self._timer.cancel()
        # Kept here, since not every event loop's timer can tell when it is due.
        self._timer_at = deadline
        self._timer = self._loop.call_at(deadline, self._tick, deadline)

    def _tick(self, deadline: float) -> None:
        self._timer = None
        self._rules.tick(deadline)
        self._wake_writer.set()
        self._arm()

    def _plan_refresh(self) -> None:
        """Fetch a new token well before the present one expires."""
        self._expires_at = self._rules.expires_at
        if self._refresh_timer is not None:
            self._refresh_timer.cancel()
        if not isinstance(self._token, str):
            # Not all clients at the same moment.
            seconds = (self._expires_at - time.time()) * random.uniform(0.7, 0.9)  # noqa: S311
            if seconds <= 0:
                seconds = REFRESH_AGAIN_SECONDS
            self._refresh_timer = self._loop.call_later(seconds, self._start_refresh)

    def _start_refresh(self) -> None:
        self._refresh_timer = None
        self._refresh_task = asyncio.create_task(self._refresh(), name="queuesystem-refresh")

    async def _refresh(self) -> None:
        try:
            token = await self._fetch_token()
        except (ConnectionFailed, Loss) as error:
            # Should the token expire for that, the next connection asks for one again.
            _log.warning("%s: %s", self.url, error)
        else:
            self._rules.refresh(token)
            self._wake_writer.set()

    async def _fetch_token(self) -> str:
        """Return a token. Raises Loss for trouble with the network, else ConnectionFailed."""
        if isinstance(self._token, str):
            return self._token
        try:
            token = self._token()
            return await token if inspect.isawaitable(token) else token
        except OSError as error:
            raise Loss(f"no token: {error}") from error
        except Exception as error:
            raise ConnectionFailed(f"no token: {error!r}") from error

    # The end

    def _fail(self, error: ConnectionFailed) -> None:
        """End everything with `error`."""
        if self._failure is not None:
            return
        self._failure = error
        self._state = "closed"
        self._rules.fail(str(error), error.code)
        if not self._opened.done():
            self._opened.set_exception(error)
        for future in self._ready:
            if not future.done():
                future.set_result(None)  # `ready` sees the failure itself
        self._ready.clear()
        for timer in (self._timer, self._refresh_timer):
            if timer is not None:
                timer.cancel()

    async def _stop(self, reason: str) -> None:
        tasks = [task for task in (self._task, self._refresh_task) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._fail(ConnectionFailed(reason))


@cache
def _version() -> str:
    try:
        return version("queuesystem")
    except PackageNotFoundError:  # used without being installed
        return ""
