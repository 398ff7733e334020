"""The sessions' side of WebSockets: hello, authentication, messages in, frames out, closing.

    serve(): hello -> welcome -> for each message: frames -> session -> outbox -> one message

Whatever goes wrong here ends this connection, with a close code that says why, and touches no
other; the session goes on without it.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Literal

import structlog
from websockets.datastructures import Headers

from protocol import frames as wire
from protocol.codec import FrameError, TooManyBadFrames, decode_client_message, encode
from protocol.codes import CloseCode, ErrorCode
from server.auth import REFRESH_GRACE_SECONDS, Identity, KeysUnavailable, Unauthenticated, Verifier
from server.connection import Connection, ConnectionLost
from server.origins import Origins
from server.outbox import Outbox
from server.scopes import join_scopes
from server.session import Flooded, refusal
from server.sessions import Seat, Sessions, TooManyOfSubject, TooManySessions

REASON_BYTES_MAX: Final = 123
"""A close reason is at most this long (RFC 6455 section 5.5)."""

_FLOODED: Final = "slow_consumer: too many frames of one message were refused: keep to the window"
_SLOW: Final = "slow_consumer: read faster, then resume"

_log = structlog.get_logger(__name__)


Handshake = Literal["welcomed", "refused", "lost"]
"""What became of a WebSocket: `lost` is gone before its welcome."""
LIMITS: Final = ("connections", "connections_per_subject", "sessions", "sessions_per_subject")
"""The limits that keep connections out, by the names of Gateway.rejected."""


class Refusal(Exception):
    """This connection is to be closed with `code`; the text names the error and what to do.

    `limit` is which of LIMITS kept it out, if one did. `quoted` may repeat what the client sent,
    so that is not in `logged`, the text for the log.
    """

    def __init__(
        self,
        code: CloseCode,
        error: ErrorCode | str,
        message: str,
        quoted: str = "",
        *,
        limit: str = "",
    ) -> None:
        super().__init__(message + quoted)
        self.limit = limit
        self.code = code
        self.error = error
        self.logged = f"{error}: {message}"

    @property
    def reason(self) -> str:
        """The close reason, cut to what a close frame can hold."""
        text = f"{self.error}: {self}".encode()[:REASON_BYTES_MAX]
        return text.decode(errors="ignore")


class Gateway:
    """All connections of this process that have a session.

    What it counts since its start: `handshakes` by what became of them, `rejected` connections by
    the limit that kept them out, `slow_consumers` that were closed, and `takeovers`.
    """

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
        max_connections_per_subject: int = 10_000,
    ) -> None:
        self._sessions = sessions
        self._verifier = verifier
        self._origins = origins
        self._clock = clock
        self._auth_timeout_seconds = auth_timeout_seconds
        self._slow_consumer_timeout_seconds = slow_consumer_timeout_seconds
        self._outbox_bytes = outbox_bytes
        self._max_connections = max_connections
        self._max_connections_per_subject = max_connections_per_subject
        self._counts: Counter[str] = Counter()  # of _links, by subject
        self.handshakes: Counter[Handshake] = Counter()
        self.rejected: Counter[str] = Counter()
        self.slow_consumers = 0
        self.takeovers = 0
        self._links: dict[str, Link] = {}
        self._greeting = 0
        self._farewell: Callable[[], wire.GoAway] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.loop = asyncio.get_running_loop()

    @property
    def links(self) -> list["Link"]:
        """The live connections that have a session."""
        return list(self._links.values())

    def __len__(self) -> int:
        return len(self._links)

    def outbox_bytes(self) -> int:
        """Return how many bytes wait to be sent on all of them: a look at each."""
        return sum(link.outbox.size for link in self._links.values())

    async def serve(self, connection: Connection) -> None:
        """Take `connection` from hello to welcome; from then on its messages are taken."""
        self._greeting += 1
        try:
            self._check_admission(connection)
            hello = await self._hello(connection)
            identity = await self._authenticate(connection, hello)
            if hello.session is not None:
                await self._sessions.recovered.wait()
            self._link(connection, hello, identity)
            self.handshakes["welcomed"] += 1
        except Refusal as refused:
            self.handshakes["refused"] += 1
            if refused.limit:
                self.rejected[refused.limit] += 1
            _log.info(
                "refused",
                connection=connection.id,
                address=connection.address,
                code=int(refused.code),
                reason=refused.logged,
            )
            connection.close(refused.code, refused.reason)
        except ConnectionLost:
            self.handshakes["lost"] += 1  # gone before it had a session
        finally:
            self._greeting -= 1

    def _link(self, connection: Connection, hello: wire.Hello, identity: Identity) -> None:
        self._check_subject(hello, identity)
        seat, reason = self._seat(hello, identity)
        link = Link(self, connection, seat, identity, self._outbox_bytes)
        self._take_over(link)
        session = seat.session
        try:
            session.authorize(join_scopes(identity.scopes))
            session.attach(link.outbox, hello, identity.expires_at, reason)
            _log.info(
                "connection_opened",
                connection=connection.id,
                session=session.state.id,
                subject=identity.subject,
                address=connection.address,
                resumed=hello.session == session.state.id,
                reason=reason,
                epoch=session.epoch,
                unfinished=session.unfinished,
            )
            if self._farewell is not None:
                link.outbox.put(self._farewell())
            connection.listen(link)
        except BaseException:
            self.lost(link)  # nobody else would say so
            raise

    def _check_admission(self, connection: Connection) -> None:
        if len(self._links) + self._greeting > self._max_connections:
            raise Refusal(
                CloseCode.OVERLOADED,
                ErrorCode.OVERLOADED,
                "too many connections: come back later",
                limit="connections",
            )
        headers = connection.request.headers if connection.request is not None else Headers()
        if not self._origins.allows(headers.get("Origin"), headers.get("Host")):
            self._verifier.failures["origin"] += 1
            raise Refusal(
                CloseCode.FORBIDDEN, ErrorCode.FORBIDDEN, "this origin is not allowed here"
            )

    def _check_subject(self, hello: wire.Hello, identity: Identity) -> None:
        subject = identity.subject
        if self._counts[subject] < self._max_connections_per_subject:
            return
        older = self._links.get(hello.session or "")
        if older is not None and older.identity.subject == subject:
            return  # takes its place
        raise Refusal(
            CloseCode.TOO_MANY_CONNECTIONS,
            ErrorCode.OVERLOADED,
            "your subject has too many connections: close some",
            limit="connections_per_subject",
        )

    async def _hello(self, connection: Connection) -> wire.Hello:
        try:
            async with asyncio.timeout(self._auth_timeout_seconds):
                message = await connection.message()
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
        quoted = ""
        if isinstance(first, wire.Hello):
            problem = "wait for welcome before sending more frames"
        elif isinstance(first, FrameError):
            problem, quoted = "the first frame must be a hello", f": {first}"
        else:
            problem = "the first frame must be a hello"
        connection.send(encode(refusal(ErrorCode.BAD_FRAME, problem + quoted)))
        raise Refusal(CloseCode.PROTOCOL_ERROR, ErrorCode.BAD_FRAME, problem, quoted)

    async def _authenticate(self, connection: Connection, hello: wire.Hello) -> Identity:
        if hello.token is None:
            if connection.identity is not None:
                return connection.identity
            self._verifier.failures["missing"] += 1
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
        except TooManyOfSubject:
            raise Refusal(
                CloseCode.TOO_MANY_CONNECTIONS,
                ErrorCode.OVERLOADED,
                "your subject has too many sessions: resume one, or end some with bye",
                limit="sessions_per_subject",
            ) from None
        except TooManySessions:
            raise Refusal(
                CloseCode.OVERLOADED,
                ErrorCode.OVERLOADED,
                "too many sessions: come back later",
                limit="sessions",
            ) from None
        return seat, None if hello.session is None else "unknown_session"

    def _take_over(self, link: "Link") -> None:
        session_id = link.seat.session.state.id
        older = self._links.get(session_id)
        self._links[session_id] = link
        if older is None:
            self._counts[link.identity.subject] += 1
        else:
            self.takeovers += 1
            older.seat.session.detach(older.outbox)
            older.outbox.close()  # its end may take long, and nobody shall wait for its room
            self.close(
                older,
                CloseCode.TAKEN_OVER,
                "taken_over: this session was resumed by a newer connection",
            )

    def take(self, link: "Link", message: str | bytes) -> None:
        """Take a message of `link`; nothing that it does wrong goes beyond its connection."""
        try:
            self._take(link, message)
        except Flooded:
            self.close(link, CloseCode.SLOW_CONSUMER, _FLOODED)
        except Exception:
            _log.exception(
                "connection_failed", connection=link.connection.id, session=link.session.state.id
            )
            self.close(link, CloseCode.INTERNAL_ERROR, "internal error")

    def _take(self, link: "Link", message: str | bytes) -> None:
        session = link.session
        if session.out is not link.outbox:
            return  # taken over: what this connection says no longer counts
        if isinstance(message, bytes):
            session.refuse(ErrorCode.BAD_FRAME, "messages must be text, this one is binary")
            self._close_if_over(link, ())
            return
        frames = decode_client_message(message)
        rest = session.receive(frames, message)
        if rest is not None:
            link.connection.hold()  # until the token is verified
            task = self.loop.create_task(self._refresh(link, *rest))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._close_if_over(link, frames)

    def _close_if_over(self, link: "Link", frames: Sequence[wire.ClientFrame | FrameError]) -> bool:
        """Close the connection if `frames`, which were taken, were the last; tell whether."""
        if link.session.state.closed:
            self.close(link, CloseCode.NORMAL, "bye: the session is over")
        elif frames and isinstance(frames[-1], TooManyBadFrames):
            self.close(link, CloseCode.PROTOCOL_ERROR, f"bad_frame: {frames[-1]}")
        elif link.outbox.overflowed:
            self.close(link, CloseCode.SLOW_CONSUMER, _SLOW)
        else:
            return False
        return True

    async def _refresh(
        self, link: "Link", refresh: wire.Refresh, frames: Sequence[wire.ClientFrame | FrameError]
    ) -> None:
        """Verify a new token, then go on with the `frames` behind it."""
        session = link.session
        rest: tuple[wire.Refresh, Sequence[wire.ClientFrame | FrameError]] | None
        rest = (refresh, frames)
        try:
            while rest is not None:
                refresh, frames = rest
                await self._authorize(link, refresh)
                await asyncio.sleep(0)  # the others' turn: a message may be full of them
                if session.out is not link.outbox:
                    return
                rest = session.receive(frames, None)
        except Refusal as refused:
            self.close(link, refused.code, refused.reason)
        except Flooded:
            self.close(link, CloseCode.SLOW_CONSUMER, _FLOODED)
        except Exception:
            _log.exception(
                "connection_failed", connection=link.connection.id, session=session.state.id
            )
            self.close(link, CloseCode.INTERNAL_ERROR, "internal error")
        else:
            if not self._close_if_over(link, frames):
                link.connection.go_on()

    async def _authorize(self, link: "Link", refresh: wire.Refresh) -> None:
        identity = await self._verify(refresh.token)
        if identity.subject != link.identity.subject:
            self._verifier.failures["subject"] += 1
            raise Refusal(
                CloseCode.FORBIDDEN, ErrorCode.FORBIDDEN, "refresh: the token has another subject"
            )
        link.identity = identity
        link.session.authorize(join_scopes(identity.scopes))
        link.outbox.put(wire.Refreshed(identity.expires_at))

    def lost(self, link: "Link") -> None:
        """Take note that the connection of `link` is gone."""
        session = link.session
        link.outbox.close()
        session.detach(link.outbox)
        _log.info(
            "connection_lost",
            connection=link.connection.id,
            session=session.state.id,
            code=link.connection.close_code,
            unfinished=session.unfinished,
        )
        if self._links.get(session.state.id) is link:
            del self._links[session.state.id]
            subject = link.identity.subject
            self._counts[subject] -= 1
            if not self._counts[subject]:
                del self._counts[subject]
            link.seat.idle_since = self.loop.time()
            self._sessions.drop_if_over(link.seat)

    def sweep(self) -> None:
        """Close connections whose token expired, and slow consumers; called every second."""
        now = self._clock()
        monotonic = self.loop.time()
        for link in self.links:
            if now > link.identity.expires_at + REFRESH_GRACE_SECONDS:
                self.close(
                    link,
                    CloseCode.TOKEN_EXPIRED,
                    "unauthenticated: the token expired, come back with a fresh one",
                )
            elif link.outbox.overflowed or (
                (since := link.connection.paused_since) is not None
                and monotonic - since > self._slow_consumer_timeout_seconds
            ):
                self.close(link, CloseCode.SLOW_CONSUMER, _SLOW)

    def end(self, session_id: str) -> None:
        """Close the connection of a session that an operator has closed, if there is one."""
        link = self._links.get(session_id)
        if link is not None:
            self.close(link, CloseCode.NORMAL, "closed: an operator ended this session")

    def go_away(self, reason: str, reconnect_after: Callable[[], float]) -> None:
        """Tell every client that the server drains, each with its own time to come back.

        Those who are just greeted are told when they have been.
        """
        self._farewell = lambda: wire.GoAway(reason, reconnect_after())
        for link in self.links:
            link.outbox.put(self._farewell())

    def close(self, link: "Link", code: CloseCode, reason: str) -> None:
        """Close the connection of `link`, behind what can still be sent."""
        if link.connection.open:
            self.slow_consumers += code is CloseCode.SLOW_CONSUMER
            _log.info(
                "closing",
                connection=link.connection.id,
                session=link.session.state.id,
                code=int(code),
                reason=reason,
            )
            link.flush()
            link.connection.close(code, reason)


class Link:
    """A connection and its session: what comes is taken, what the session says is sent.

    All frames of one turn of the event loop become one message.
    """

    __slots__ = ("_flushing", "_gateway", "connection", "identity", "outbox", "seat", "session")

    def __init__(
        self,
        gateway: Gateway,
        connection: Connection,
        seat: Seat,
        identity: Identity,
        outbox_bytes: int,
    ) -> None:
        self.connection = connection
        self.seat = seat
        self.session = seat.session
        self.identity = identity
        self.outbox = Outbox(outbox_bytes, self._wake)
        self._gateway = gateway
        self._flushing = False

    def take(self, message: str | bytes) -> None:
        """See connection.Receiver."""
        self._gateway.take(self, message)

    def resumed(self) -> None:
        """See connection.Receiver."""
        if self.outbox.size:
            self._wake()

    def lost(self) -> None:
        """See connection.Receiver."""
        self._gateway.lost(self)

    def flush(self) -> None:
        """Send what is in the outbox, as long as the peer takes it."""
        self._flushing = False
        connection = self.connection
        outbox = self.outbox
        session = self.session
        while outbox.size and connection.open and connection.paused_since is None:
            message = outbox.take()
            if session.lagging and session.out is outbox:
                session.refill()
            connection.send(message)

    def _wake(self) -> None:
        if not self._flushing and self.connection.paused_since is None:
            self._flushing = True
            self._gateway.loop.call_soon(self.flush)
