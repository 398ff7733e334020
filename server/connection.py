"""One TCP connection: an HTTP request, and then WebSocket messages both ways.

    bytes -> websockets' Sans-I/O protocol -> request -> host
                                           -> messages -> receiver
    send(message) -> Sans-I/O protocol -> transport

While a connection is idle it has no task, no timer and no buffer of its own; the library's
asyncio layer has a task, a lock and queues for each. Everything here runs in the event loop.
"""

import asyncio
import secrets
from collections import Counter, deque
from http import HTTPStatus
from typing import Final, Protocol, cast

import structlog
from websockets.frames import CloseCode as WebSocketCode
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import SEND_EOF, State
from websockets.server import ServerProtocol

from protocol.codes import CloseCode
from server.auth import Identity

WRITE_BYTES_MAX: Final = 64 * 1024
"""So much may wait in the transport before `paused_since` is set."""
HELLO_BYTES_MAX: Final = 64 * 1024
"""Until somebody listens a message may be no longer: who sends it is not known yet."""
CLOSE_SECONDS: Final = 8.0
"""A peer that lets the closing handshake wait for longer is cut off."""
ARRIVAL_SECONDS: Final = 0.5
"""When the server stops, so long after it connected a peer's request may still come."""

_log = structlog.get_logger(__name__)


class Traffic:
    """What goes through all connections of a listener, in plain numbers.

    `received_bytes` and `sent_bytes` are all that TCP carries, `received` and `sent` WebSocket
    messages. `paused` is how many peers let data wait now. `closed` counts WebSockets that ended,
    by the code of the close frame that came first; 1006 when there was none.
    """

    __slots__ = ("closed", "paused", "received", "received_bytes", "sent", "sent_bytes")

    def __init__(self) -> None:
        self.received = 0
        self.sent = 0
        self.received_bytes = 0
        self.sent_bytes = 0
        self.paused = 0
        self.closed: Counter[int] = Counter()


class ConnectionLost(Exception):
    """The connection ended before what was waited for."""


class Host(Protocol):
    """Who answers requests (listener.py). `max_message_bytes` bounds the messages of sessions."""

    max_message_bytes: int
    traffic: Traffic

    def connected(self, connection: "Connection") -> None:
        """Take note of a new `connection`, or abort it."""
        ...

    def requested(self, connection: "Connection", request: Request) -> None:
        """Take the one HTTP request of `connection`."""
        ...

    def lost(self, connection: "Connection") -> None:
        """Take note that `connection` is gone."""
        ...


class Receiver(Protocol):
    """Who takes the messages of an open connection (gateway.py)."""

    def take(self, message: str | bytes) -> None:
        """Take a message: text, or bytes when it was binary."""
        ...

    def resumed(self) -> None:
        """Take note that there is room for writing again."""
        ...

    def lost(self) -> None:
        """Take note that the connection is gone."""
        ...


class Connection(asyncio.Protocol):
    """See above. `id` is what the log calls this connection. `address` is the client's: the peer's,
    or what a trusted proxy told; empty when not known. `network` is for admission.py. `request` is
    there until somebody listens; `identity` is what its `Authorization: Bearer` brought. `early`
    tells that something came behind the request before it was answered.

    One whose request has not come after `open_timeout_seconds` is cut off.

    `paused_since` is the loop's time since when the peer lets data wait, or None. `seen_at` is
    the loop's time at which it was last heard of.
    """

    __slots__ = (
        "_answering",
        "_closing",
        "_cut_off",
        "_fragments",
        "_head_end",
        "_held",
        "_host",
        "_inbox",
        "_loop",
        "_open_timeout_seconds",
        "_pong",
        "_protocol",
        "_receiver",
        "_traffic",
        "_transport",
        "_upgraded",
        "_waiter",
        "address",
        "early",
        "id",
        "identity",
        "lost",
        "network",
        "paused_since",
        "pinged",
        "request",
        "seen_at",
    )

    def __init__(
        self,
        host: Host,
        protocol: ServerProtocol,
        loop: asyncio.AbstractEventLoop,
        open_timeout_seconds: float,
    ) -> None:
        self.id = secrets.token_hex(4)
        self.address = ""
        self.network = ""
        self.identity: Identity | None = None
        self.request: Request | None = None
        self.paused_since: float | None = None
        self.seen_at = loop.time()
        self.pinged = False
        self.lost = False
        self.early = False
        # The last bytes of an incomplete request; None when it is complete.
        self._head_end: bytes | None = b""
        self._answering = False
        # Set once this side begins to close: what comes then counts no more. What the peer said
        # before it closed does, in the same packet too.
        self._closing = False
        self._host = host
        self._traffic = host.traffic
        self._upgraded = False
        self._protocol = protocol
        self._loop = loop
        self._transport: asyncio.Transport
        self._receiver: Receiver | None = None
        # What came while nobody received, or while it was held; the transport is paused meanwhile.
        self._inbox: deque[str | bytes] | None = None
        self._held = False
        self._waiter: asyncio.Future[None] | None = None
        # Of a message in several frames: whether it is text, and what has come of it. In one
        # piece: fragments are as small as the peer likes, and empty ones need not end.
        self._fragments: tuple[bool, bytearray] | None = None
        # The answer to the last ping of a peer that lets data wait.
        self._pong: bytes | None = None
        # While the request, or the peer's part of an ending, is waited for.
        self._open_timeout_seconds = open_timeout_seconds
        self._cut_off: asyncio.TimerHandle | None = None

    @property
    def close_code(self) -> int | None:
        """The code of the closing handshake, 1006 when there was none, None before the end."""
        return self._protocol.close_code

    @property
    def open(self) -> bool:
        """Tell whether messages can be sent."""
        return self._protocol.state is State.OPEN

    # From the network

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(WRITE_BYTES_MAX)
        peer = self._transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else ""
        self._cut_off_after(self._open_timeout_seconds)
        self._host.connected(self)

    def data_received(self, data: bytes) -> None:
        self.seen_at = self._loop.time()
        self.pinged = False
        self._traffic.received_bytes += len(data)
        if self._head_end is not None:
            data = self._head(self._head_end, data)
        elif self._answering:
            self.early = True
            return  # nothing more is read: the request has no body, and messages come later
        protocol = self._protocol
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Frame):
                self._frame(event)
            else:
                self._answering = True
                self._cancel_cut_off()
                self.request = cast("Request", event)
                self._host.requested(self, self.request)
                return
        self._write()

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self._write()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._upgraded:
            self._traffic.closed[self._close_code()] += 1
        if self.paused_since is not None:
            self._traffic.paused -= 1
        self._protocol.receive_eof()
        self._cancel_cut_off()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ConnectionLost())
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.lost()
        self._host.lost(self)
        # Nothing may refer back to what is gone: the garbage collector comes by seldom, and in a
        # storm of connections much would wait for it. The library's parser does.
        self._protocol.parser.close()
        self._protocol.parser_exc = None

    def pause_writing(self) -> None:
        self.paused_since = self._loop.time()
        self._traffic.paused += 1

    def resume_writing(self) -> None:
        self.paused_since = None
        self._traffic.paused -= 1
        if self._pong is not None and self.open:
            self._transport.write(self._pong)
        self._pong = None
        if self._receiver is not None:
            self._receiver.resumed()

    def _close_code(self) -> int:
        theirs, ours = self._protocol.close_rcvd, self._protocol.close_sent
        if ours is not None and (theirs is None or not self._protocol.close_rcvd_then_sent):
            return int(ours.code)
        return int(theirs.code if theirs is not None else WebSocketCode.ABNORMAL_CLOSURE)

    def _head(self, before: bytes, data: bytes) -> bytes:
        """Return `data` up to the end of the request; `before` is what came of it, or its end."""
        if not before and not data[:1].isalpha():
            return _NO_REQUEST  # TLS, for example: it would wait for an answer
        seen = before + data
        end = seen.find(_END_OF_HEAD)
        if end < 0:
            self._head_end = seen[1 - len(_END_OF_HEAD) :]
            return data
        self._head_end = None
        size = end + len(_END_OF_HEAD) - len(before)
        self.early = size < len(data)
        return data[:size]

    def _frame(self, frame: Frame) -> None:
        opcode = frame.opcode
        if opcode is Opcode.TEXT or opcode is Opcode.BINARY:
            if frame.fin:
                self._message(opcode is Opcode.TEXT, bytes(frame.data))
            else:
                self._fragments = (opcode is Opcode.TEXT, bytearray(frame.data))
        elif opcode is Opcode.CONT and self._fragments is not None:
            is_text, message = self._fragments
            message += frame.data
            if frame.fin:
                self._fragments = None
                self._message(is_text, bytes(message))

    def _message(self, is_text: bool, data: bytes) -> None:
        if self._closing:
            return  # nobody listens any more
        self._traffic.received += 1
        message: str | bytes = data
        if is_text:
            try:
                message = data.decode()
            except UnicodeDecodeError as error:
                # RFC 6455 section 8.1
                reason = f"{error.reason} at position {error.start}"
                self._protocol.fail(WebSocketCode.INVALID_DATA, reason)
                self._closing = True
                return
        if self._receiver is not None and self._inbox is None:
            self._receiver.take(message)
            return
        self._keep().append(message)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # For its user

    async def message(self) -> str | bytes:
        """Return the next message. Raises ConnectionLost."""
        while not self._inbox:
            if self.lost:
                raise ConnectionLost
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._inbox.popleft()

    def listen(self, receiver: Receiver) -> None:
        """Hand messages to `receiver` from now on, and tell it when the connection is lost."""
        self.request = None
        self._protocol.max_message_size = self._host.max_message_bytes
        self._receiver = receiver
        if self.lost:
            receiver.lost()
        else:
            self._hand_over(receiver)

    def hold(self) -> None:
        """Let messages wait until `go_on`."""
        self._held = True
        self._keep()

    def go_on(self) -> None:
        """Hand over the messages that waited, and what comes."""
        self._held = False
        if self._receiver is not None and not self.lost:
            self._hand_over(self._receiver)

    def _keep(self) -> deque[str | bytes]:
        """Return what messages wait in; nothing more is read."""
        if self._inbox is None:
            self._inbox = deque()
            self._transport.pause_reading()
        return self._inbox

    def _hand_over(self, receiver: Receiver) -> None:
        while self._inbox:
            receiver.take(self._inbox.popleft())
            if self._held:
                return
        self._read_on()

    def _read_on(self) -> None:
        if self._inbox is not None:
            self._inbox = None
            self._transport.resume_reading()

    def respond(self, response: Response) -> None:
        """Answer the request; unless the status is 101 that is the end of the connection."""
        if self.lost or self._transport.is_closing():
            return
        if response.status_code == 101:
            self._answering = False
            self._upgraded = True
            self._protocol.send_response(response)
            self._write()
        else:
            data = response.serialize()
            self._traffic.sent_bytes += len(data)
            self._transport.write(data)
            self._half_close()

    def accept(self, request: Request) -> Response:
        """Return the response to a WebSocket handshake."""
        return self._protocol.accept(request)

    def reject(self, status: HTTPStatus, text: str) -> Response:
        """Return a plain response."""
        return self._protocol.reject(status, text)

    def send(self, message: bytes) -> None:
        """Send `message` as text; nothing happens when the connection is not open."""
        if self.open:
            self._protocol.send_text(message)
            self._traffic.sent += 1
            self._write()

    def ping(self) -> None:
        """Send a ping; `pinged` is set until something comes."""
        if self.open:
            self.pinged = True
            self._protocol.send_ping(b"")
            self._write()

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Begin the closing handshake; a peer that does not play along is cut off.

        Where there is no WebSocket yet: a request that has come gets its answer, and is the last.
        """
        if self.open:
            self._closing = True
            self._protocol.send_close(code, reason)
            self._write()
            self._cut_off_after(CLOSE_SECONDS)
            self._read_on()  # for the peer's part of the handshake
        elif self._head_end is not None and not self.lost:
            self._cancel_cut_off()
            self._cut_off_after(max(0.0, self.seen_at + ARRIVAL_SECONDS - self._loop.time()))
        elif self._protocol.state is not State.CONNECTING and not self.lost:
            self._read_on()  # the peer was first, and will end the stream

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    def _write(self) -> None:
        writes = self._protocol.data_to_send()
        if writes == [SEND_EOF] and self._protocol.state is State.CONNECTING:
            # The library gives up on a request without a word.
            self._transport.write(_BAD_REQUEST)
        for data in writes:
            if data == SEND_EOF:
                if not self.lost:
                    self._half_close()
            elif data[0] == _PONG and self.paused_since is not None:
                # Pings come for nothing: who reads none of the answers gets the last one, in the
                # end (RFC 6455 section 5.5.3).
                self._pong = data
            else:
                self._traffic.sent_bytes += len(data)
                self._transport.write(data)

    def _half_close(self) -> None:
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._cut_off_after(CLOSE_SECONDS)

    def _cut_off_after(self, seconds: float) -> None:
        if self._cut_off is None and not self.lost:
            self._cut_off = self._loop.call_later(seconds, self.abort)

    def _cancel_cut_off(self) -> None:
        if self._cut_off is not None:
            self._cut_off.cancel()
            self._cut_off = None


_PONG: Final = 0x80 | Opcode.PONG
"""How a pong begins."""
_END_OF_HEAD: Final = b"\r\n\r\n"
_NO_REQUEST: Final = b"\r\n"
"""What the library refuses at once."""
_PROBLEM: Final = b'{"error": "not an HTTP/1.1 request, or one with a body: send none"}\n'
_BAD_REQUEST: Final = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_PROBLEM), _PROBLEM)
)
