"""One session under load, on one connection after another.

    dial -> hello -> welcome -> send what there is room for -> replies -> send ... -> bye
    lost -> wait (exponential backoff, full jitter) -> dial ... and go on where it was

Everything that may go out at one moment is one message. Events are acknowledged in batches, with
the requests that go out next.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from protocol import frames as wire
from protocol.client_rules import backoff
from protocol.codec import FrameError, decode_server_message, encode
from protocol.codes import CloseCode

from .checker import Checker, Kind
from .schedule import Supply
from .websocket import Lost, Socket, dial
from .workload import Workload

ACK_EVENTS: Final = 64
"""Events are acknowledged when there are so many,"""
ACK_BYTES: Final = 256 * 1024
"""or when so many bytes came, or a quarter of the results that the server keeps."""
RECONNECT_BASE_SECONDS: Final = 0.05
RECONNECT_CAP_SECONDS: Final = 2.0
STEADY_SECONDS: Final = 1.0
"""A connection that held for so long begins the backoff anew."""
WELCOME_SECONDS: Final = 10.0
REFUSED_SECONDS: Final = 0.1
"""In the closed loop nothing is sent for so long after a refusal: it would be refused again."""

_CLIENT: Final = wire.ClientInfo("loadtest")


class Fatal(Exception):
    """The run cannot go on; the text says why."""


class Connection:
    """Connection `number` of the run. `run` serves it until `close`; it raises Fatal."""

    def __init__(self, number: int, workload: Workload, supply: Supply) -> None:
        self.started = asyncio.Event()
        """Set with the first welcome."""
        self.supply = supply
        self._number = number
        self._work = workload
        self._meter = workload.meter
        self._checker = Checker(self._violated)
        self._socket: Socket | None = None
        self._welcome: asyncio.Future[None] | None = None
        self._online = False
        self._closing = False
        self._last_error = ""
        # Of this connection:
        self._acked = 0
        self._unacked_bytes = 0
        self._ack_bytes = ACK_BYTES
        self._frames_max = 1
        # After a refusal, in the closed loop.
        self._held = False

    @property
    def idle(self) -> bool:
        """Tell whether nothing is to be sent and nothing to come."""
        return not self._checker.unfinished and not self.supply.waiting

    @property
    def online(self) -> bool:
        """Tell whether there is a connection, greeted and not closed."""
        return self._online

    async def run(self) -> None:
        """Connect, as often as it takes, until `close`. Raises Fatal."""
        failures = 0
        while True:
            began = time.monotonic()
            try:
                socket = await self._connect()
                lost = await socket.closed
                if self._closing:
                    return
                self._disconnected(lost)
            except Lost as error:
                lost = error
                self._give_up_if_hopeless(lost)
            self._meter.totals.last_loss = str(lost)
            if time.monotonic() - began > STEADY_SECONDS:
                failures = 0
            delay = backoff(
                failures, RECONNECT_BASE_SECONDS, RECONNECT_CAP_SECONDS, self._work.random.random
            )
            failures += 1
            wish = self._checker.reconnect_after_seconds
            self._checker.reconnect_after_seconds = None
            await asyncio.sleep(delay if wish is None else wish)

    def close(self, *, cancel: bool) -> bool:
        """Say bye, and let `run` return; tell whether there is a connection to be closed."""
        self._closing = True
        if self._socket is None or not self._online:
            return False
        self._socket.send(encode(wire.Bye(cancel)))
        return True

    def abort(self) -> None:
        """End the connection at once."""
        if self._socket is not None:
            self._socket.abort()

    # Connecting

    async def _connect(self) -> Socket:
        """Dial and greet. Raises Lost."""
        checker = self._checker
        hello = wire.Hello(
            token=self._work.tokens.of(self._number),
            session=checker.session,
            epoch=checker.epoch,
            seq=checker.seq,
            client=_CLIENT,
        )
        async with self._work.dialing:
            self._welcome = welcome = asyncio.get_running_loop().create_future()
            self._last_error = ""
            self._socket = socket = await dial(self._work.target, self._receive)
            socket.send(encode(hello))
            try:
                await asyncio.wait(
                    [welcome, socket.closed],
                    timeout=WELCOME_SECONDS,
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                if not welcome.done():
                    socket.abort()
        if welcome.done():
            welcome.result()
            return socket
        if not socket.closed.done():
            raise Lost("the server did not answer hello in time")
        lost = socket.closed.result()
        raise Lost(f"{lost}{self._last_error}", lost.code, fatal=lost.fatal)

    def _give_up_if_hopeless(self, lost: Lost) -> None:
        expired = lost.code == CloseCode.TOKEN_EXPIRED and self._work.tokens.given is not None
        # The first connection of all tells whether the address and the server are right.
        if lost.fatal or expired or not self._work.welcomed:
            raise Fatal(str(lost)) from lost

    def _disconnected(self, lost: Lost) -> None:
        self._online = False
        totals = self._meter.totals
        totals.closes[lost.code] += 1
        self._meter.tick.connected -= 1
        if lost.fatal:
            raise Fatal(str(lost))

    def _greeted(self, frame: wire.Welcome) -> None:
        """Go on with what the server says to hello."""
        work = self._work
        limits = frame.limits
        if work.window > limits.window:
            raise Fatal(
                f"the server allows {limits.window} unfinished requests a session: "
                f"--window {limits.window} or less, or raise QUEUESYSTEM_WINDOW there"
            )
        if work.frame_bytes_max > limits.max_message_bytes:
            raise Fatal(
                f"a request of {work.frame_bytes_max} bytes is larger than the "
                f"{limits.max_message_bytes} bytes that the server takes"
            )
        self._frames_max = limits.max_message_bytes // (work.frame_bytes_max + 1) or 1
        self._ack_bytes = min(ACK_BYTES, limits.max_result_bytes // 4)
        self._acked = 0  # the last acknowledgement may not have arrived
        again = self._checker.welcome(frame)
        self._online = True
        self._meter.tick.connected += 1
        if self.started.is_set():
            self._meter.totals.reconnects += 1
        else:
            work.welcomed += 1
            self.started.set()
        self._write([work.template % number for number in again])

    # Receiving

    def _receive(self, messages: list[bytes]) -> None:
        now = time.monotonic()
        data = messages[0] if len(messages) == 1 else b"\n".join(messages)
        frames = decode_server_message(data)
        if self._welcome is not None:
            frames = self._take_welcome(frames, self._welcome)
        checker = self._checker
        checker.receive(frames)
        self._unacked_bytes += len(data)
        if checker.refused:
            self._refused()
        self._meter.take(checker, now)
        self.flush()
        if self.idle:
            self._work.settled(self)

    def _take_welcome(
        self,
        frames: Sequence[wire.ServerFrame | FrameError],
        welcome: "asyncio.Future[None]",
    ) -> Sequence[wire.ServerFrame | FrameError]:
        """Take the answer to hello; return the frames after it."""
        for position, frame in enumerate(frames, start=1):
            if isinstance(frame, wire.Welcome):
                self._welcome = None
                if welcome.done():
                    return ()
                try:
                    self._greeted(frame)
                    welcome.set_result(None)
                except Fatal as error:
                    welcome.set_exception(error)
                    return ()
                return frames[position:]
            if isinstance(frame, wire.Error):
                self._last_error = f" ({frame.code}: {frame.message})"
        return ()

    def _refused(self) -> None:
        """Give the server a moment, and what it may be waiting for: an acknowledgement."""
        self._checker.refused = False
        self._unacked_bytes = self._ack_bytes
        if not self._work.open_loop and not self._held:
            self._held = True
            asyncio.get_running_loop().call_later(REFUSED_SECONDS, self._go_on)

    def _go_on(self) -> None:
        self._held = False
        self.flush()

    def _violated(self, kind: Kind, text: str) -> None:
        self._meter.violated(f"load-{self._number}, session {self._checker.session}", kind, text)

    # Sending

    def flush(self) -> None:
        """Send what is due and has room, and acknowledge when it is time to."""
        if not self._online:
            return
        frames: list[bytes] = []
        checker = self._checker
        unacked = checker.seq - self._acked
        if unacked >= ACK_EVENTS or (self._unacked_bytes >= self._ack_bytes and unacked > 0):
            self._acked = checker.seq
            self._unacked_bytes = 0
            frames.append(b'{"type":"ack","seq":%d}' % checker.seq)
        room = self._work.window - checker.unfinished
        if room > 0 and not self._held:
            now = time.monotonic()
            due = self.supply.take(room, now)
            if due:
                template = self._work.template
                frames += [template % number for number in checker.send(due)]
                self._meter.sent(due, now)
        self._write(frames)

    def _write(self, frames: Sequence[bytes]) -> None:
        """Join frames into messages, as few as the server's limit allows."""
        socket = self._socket
        if socket is not None:
            for first in range(0, len(frames), self._frames_max):
                socket.send(b"\n".join(frames[first : first + self._frames_max]))
