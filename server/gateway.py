"""One WebSocket, from handshake to close: the socket on one side, a session on the other.

    serve(): hello -> welcome -> for each message: frames -> session -> outbox -> writer

Whatever goes wrong here ends this connection, with a close code that says why, and touches no
other; the session goes on without it.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed

from protocol import frames as wire
from protocol.codec import FrameError, decode_client_message, encode
from protocol.codes import CloseCode, ErrorCode
from server.auth import REFRESH_GRACE_SECONDS, Identity, KeysUnavailable, Unauthenticated, Verifier
from server.http import Connection
from server.origins import Origins
from server.outbox import Outbox
from server.scopes import join_scopes
from server.session import refusal
from server.sessions import Seat, Sessions, TooManySessions

REASON_BYTES_MAX: Final = 123
"""A close reason is at most this long (RFC 6455 section 5.5)."""

CLOSE_SECONDS: Final = 8.0
"""A peer that lets the closing handshake wait for longer is cut off."""

_log = structlog.get_logger(__name__)


class Refusal(Exception):
    """This connection is to be closed with `code`; the text names the error and what to do."""

    def __init__(self, code: CloseCode, error: ErrorCode | str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.error = error

    @property
    def reason(self) -> str:
        """The close reason, cut to what a close frame can hold."""
        text = f"{self.error}: {self}".encode()[:REASON_BYTES_MAX]
        return text.decode(errors="ignore")


class Gateway:
    """All connections of this process."""

    def __init__(
        self,
        *,
        sessions: Sessions,
        verifier: Verifier,
        origins: Origins,
        clock: Callable[[], float],
        auth_timeout_seconds: float,
        slow_consumer_timeout_seconds: float,
        outbox_bytes: int,
        max_connections: int,
    ) -> None:
        self._sessions = sessions
        self._verifier = verifier
        self._origins = origins
        self._clock = clock
        self._auth_timeout_seconds = auth_timeout_seconds
        self._slow_consumer_timeout_seconds = slow_consumer_timeout_seconds
        self._outbox_bytes = outbox_bytes
        self._max_connections = max_connections
        self._links: dict[str, Link] = {}
        self._open = 0
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def links(self) -> list["Link"]:
        """The live connections that have a session."""
        return list(self._links.values())

    async def serve(self, connection: Connection) -> None:
        """Serve one connection until it closes."""
        self._open += 1
        try:
            await self._serve(connection)
        except Refusal as refused:
            _log.info("refused", code=int(refused.code), reason=refused.reason)
            await _hang_up(connection, refused.code, refused.reason)
        except ConnectionClosed:
            pass  # gone before it had a session
        finally:
            self._open -= 1

    async def _serve(self, connection: Connection) -> None:
        self._check_admission(connection)
        hello = await self._hello(connection)
        identity = await self._authenticate(connection, hello)
        seat, reason = self._seat(hello, identity)
        link = Link(connection, seat, identity, self._outbox_bytes)
        self._take_over(link)
        session = seat.session
        session.authorize(join_scopes(identity.scopes))
        session.attach(link.outbox, hello, identity.expires_at, reason)
        writer = asyncio.create_task(link.write())
        try:
            await self._read(link)
        except Refusal as refused:
            self._close(link, refused.code, refused.reason)
        except ConnectionClosed:
            pass  # the peer went away: nothing is wrong with the server
        except Exception:
            _log.exception("connection_failed", session=session.state.id)
            self._close(link, CloseCode.INTERNAL_ERROR, "internal error")
        finally:
            link.outbox.close()
            session.detach(link.outbox)
            if self._links.get(session.state.id) is link:
                del self._links[session.state.id]
                seat.idle_since = self._clock()
                self._sessions.drop_if_over(seat)
            await writer
            if link.closing is not None:
                # Who returns first would have its own close code sent.
                await asyncio.wait([link.closing])

    def _check_admission(self, connection: Connection) -> None:
        if self._open > self._max_connections:
            raise Refusal(
                CloseCode.OVERLOADED, ErrorCode.OVERLOADED, "too many connections: come back later"
            )
        headers = connection.request.headers if connection.request is not None else Headers()
        if not self._origins.allows(headers.get("Origin"), headers.get("Host")):
            raise Refusal(
                CloseCode.FORBIDDEN, ErrorCode.FORBIDDEN, "this origin is not allowed here"
            )

    async def _hello(self, connection: Connection) -> wire.Hello:
        try:
            async with asyncio.timeout(self._auth_timeout_seconds):
                message = await connection.recv()
        except TimeoutError:
            raise Refusal(
                CloseCode.HELLO_TIMEOUT, ErrorCode.UNAUTHENTICATED, "no hello frame in time"
            ) from None
        frames = (
            decode_client_message(message)
            if isinstance(message, str)
            else [FrameError("messages must be text, this one is binary")]
        )
        first = frames[0]
        if isinstance(first, wire.Hello) and len(frames) == 1:
            return first
        if isinstance(first, wire.Hello):
            problem = "wait for welcome before sending more frames"
        elif isinstance(first, FrameError):
            problem = f"the first frame must be a hello: {first}"
        else:
            problem = "the first frame must be a hello"
        await connection.send(refusal(ErrorCode.BAD_FRAME, problem), text=True)
        raise Refusal(CloseCode.PROTOCOL_ERROR, ErrorCode.BAD_FRAME, problem)

    async def _authenticate(self, connection: Connection, hello: wire.Hello) -> Identity:
        if hello.token is None:
            if connection.identity is not None:
                return connection.identity
            raise Refusal(
                CloseCode.UNAUTHENTICATED,
                ErrorCode.UNAUTHENTICATED,
                "no token: put a JWT into hello, or send it as Authorization: Bearer",
            )
        return await self._verify(hello.token)

    async def _verify(self, token: str) -> Identity:
        try:
            return await self._verifier.verify(token)
        except Unauthenticated as error:
            code = CloseCode.TOKEN_EXPIRED if error.expired else CloseCode.UNAUTHENTICATED
            raise Refusal(code, ErrorCode.UNAUTHENTICATED, str(error)) from None
        except KeysUnavailable as error:
            raise Refusal(CloseCode.OVERLOADED, ErrorCode.OVERLOADED, str(error)) from None

    def _seat(self, hello: wire.Hello, identity: Identity) -> tuple[Seat, str | None]:
        if hello.session is not None:
            seat = self._sessions.resume(hello.session, identity.subject)
            if seat is not None:
                return seat, None
        try:
            seat = self._sessions.open(identity.subject, join_scopes(identity.scopes))
        except TooManySessions:
            raise Refusal(
                CloseCode.OVERLOADED, ErrorCode.OVERLOADED, "too many sessions: come back later"
            ) from None
        return seat, None if hello.session is None else "unknown_session"

    def _take_over(self, link: "Link") -> None:
        session_id = link.seat.session.state.id
        older = self._links.get(session_id)
        self._links[session_id] = link
        if older is not None:
            older.seat.session.detach(older.outbox)
            self._close(
                older,
                CloseCode.TAKEN_OVER,
                "taken_over: this session was resumed by a newer connection",
            )

    async def _read(self, link: "Link") -> None:
        session = link.seat.session
        receive = session.receive
        async for message in link.connection:
            if session.out is not link.outbox:
                return  # taken over: what this connection says no longer counts
            if isinstance(message, bytes):
                session.refuse(ErrorCode.BAD_FRAME, "messages must be text, this one is binary")
                continue
            for frame in decode_client_message(message):
                match frame:
                    case wire.Refresh():
                        await self._refresh(link, frame)
                    case wire.Bye():
                        session.close(cancel=frame.cancel)
                        raise Refusal(CloseCode.NORMAL, "bye", "the session is over")
                    case wire.Hello():
                        session.refuse(ErrorCode.BAD_FRAME, "hello: this connection has said it")
                    case FrameError():
                        session.refuse(ErrorCode.BAD_FRAME, str(frame), frame.id)
                    case _:
                        receive(frame)

    async def _refresh(self, link: "Link", frame: wire.Refresh) -> None:
        identity = await self._verify(frame.token)
        if identity.subject != link.identity.subject:
            raise Refusal(
                CloseCode.FORBIDDEN, ErrorCode.FORBIDDEN, "refresh: the token has another subject"
            )
        link.identity = identity
        link.seat.session.authorize(join_scopes(identity.scopes))
        link.outbox.put(encode(wire.Refreshed(identity.expires_at)))

    def sweep(self) -> None:
        """Close connections whose token expired, and slow consumers; called every second."""
        now = self._clock()
        monotonic = asyncio.get_running_loop().time()
        for link in self.links:
            if now > link.identity.expires_at + REFRESH_GRACE_SECONDS:
                self._close(
                    link,
                    CloseCode.TOKEN_EXPIRED,
                    "unauthenticated: the token expired, come back with a fresh one",
                )
            elif link.outbox.overflowed or (
                link.sending_since is not None
                and monotonic - link.sending_since > self._slow_consumer_timeout_seconds
            ):
                self._close(
                    link, CloseCode.SLOW_CONSUMER, "slow_consumer: read faster, then resume"
                )

    async def close_all(self, code: CloseCode, reason: str) -> None:
        """Close every connection that has a session, and wait until they are closed."""
        for link in self.links:
            self._close(link, code, reason)
        if self._closing:
            await asyncio.wait(self._closing)

    def go_away(self, reason: str, reconnect_after: Callable[[], float]) -> None:
        """Tell every client that the server drains, each with its own time to come back."""
        for link in self.links:
            link.outbox.put(encode(wire.GoAway(reason, reconnect_after())))

    def _close(self, link: "Link", code: CloseCode, reason: str) -> None:
        if link.closing is not None:
            return
        _log.info("closing", session=link.seat.session.state.id, code=int(code), reason=reason)
        # Closing waits for the peer; nobody else shall wait for that.
        link.closing = asyncio.create_task(_hang_up(link.connection, code, reason))
        self._closing.add(link.closing)
        link.closing.add_done_callback(self._closing.discard)


class Link:
    """A connection that has a session. `sending_since` is set while a write waits for the peer."""

    __slots__ = ("closing", "connection", "identity", "outbox", "seat", "sending_since")

    def __init__(
        self, connection: Connection, seat: Seat, identity: Identity, outbox_bytes: int
    ) -> None:
        self.connection = connection
        self.seat = seat
        self.identity = identity
        self.outbox = Outbox(outbox_bytes)
        self.sending_since: float | None = None
        self.closing: asyncio.Task[None] | None = None

    async def write(self) -> None:
        """Send what the session puts into the outbox until the connection is gone."""
        outbox = self.outbox
        session = self.seat.session
        send = self.connection.send
        time = asyncio.get_running_loop().time
        try:
            while True:
                await outbox.wait()
                if outbox.closed:
                    return
                message = outbox.take()
                if session.lagging and session.out is outbox:
                    session.refill()
                self.sending_since = time()
                await send(message, text=True)
                self.sending_since = None
        except ConnectionClosed:
            pass  # the reader ends too, and tidies up
        except Exception:
            _log.exception("writer_failed", session=session.state.id)
            await _hang_up(self.connection, CloseCode.INTERNAL_ERROR, "internal error")


async def _hang_up(connection: Connection, code: CloseCode, reason: str) -> None:
    """Close the connection, by force when the peer does not play along.

    The library's own close() waits without bound for room to write the close frame into.
    """
    closing = asyncio.ensure_future(connection.close(code, reason))
    await asyncio.wait([closing], timeout=CLOSE_SECONDS)
    if not closing.done():
        connection.transport.abort()
    await closing
