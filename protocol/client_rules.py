"""The rules of a session on its client's side: window, order, acknowledgement, resume. No I/O.

    submit -> pending -> take() -> sent -> accepted -> result ... -> done or error
    lost() ... welcome(): what the manifest does not know is sent again, the rest goes on

The shell (client.py) brings frames and the time, sends what `take` returns, and calls `tick` when
the time is `deadline`. A request the server refused for now goes back to the head of the line;
then nothing is sent until every request that is on its way has been answered, and next only that
one alone. So only requests that were already on their way can overtake a refused one.
"""

from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal

from msgspec import Raw

from protocol import frames as wire
from protocol.client_call import ITEM_BYTES, Buffer, Call, Phase, lost_results
from protocol.client_errors import (
    SESSION_LOST,
    ClientError,
    ConnectionFailed,
    RequestFailed,
    TooManyRequests,
)
from protocol.codec import FrameError, encode
from protocol.codes import ErrorCode

ID_LENGTH_MAX: Final = 128
"""What the protocol allows."""
REQUESTS_MAX: Final = 10_000
"""Unfinished requests the client holds, sent or not; `submit` then raises TooManyRequests."""
REQUEST_BYTES_MAX: Final = 64 * 2**20
"""The same for the bytes of requests that are not accepted yet."""
MESSAGE_BYTES_MAX: Final = 256 * 1024
"""Frames are joined up to this size, or the server's limit when that is less."""
ACK_EVENTS: Final = 128
"""So many events are acknowledged at once,"""
ACK_BYTES: Final = 256 * 1024
"""or so many bytes of results, or a quarter of what the server keeps,"""
ACK_SECONDS: Final = 0.05
"""or whatever came so long ago."""
RETRY_BASE_SECONDS: Final = 0.05
"""A request refused for now is sent again after a random time up to this, doubled each time,"""
RETRY_CAP_SECONDS: Final = 5.0
"""and up to this at most."""


def backoff(
    tries: int, base_seconds: float, cap_seconds: float, random: Callable[[], float]
) -> float:
    """Return the seconds to wait after `tries` failures: exponential, with full jitter."""
    return random() * min(cap_seconds, base_seconds * 2 ** min(tries, 32))


class Rules:
    """One session. `resume` is the id of a session of another program that is to be taken over.

    `prefix` makes the ids of requests unique among all programs that used the session; `random`
    returns numbers from 0 to 1.
    """

    def __init__(
        self,
        *,
        prefix: str,
        random: Callable[[], float],
        client: wire.ClientInfo | None = None,
        resume: str | None = None,
        buffer_bytes: int = 16 * 2**20,
    ) -> None:
        self.session = resume
        self.epoch: str | None = None
        self.limits = wire.Limits(0, 0, 0, 0)
        self.online = False
        self.buffer = Buffer(buffer_bytes)
        self.calls: dict[str, Call] = {}
        # What the last connection was told, for the shell.
        self.expires_at = 0.0
        self.reconnect_after_seconds: float | None = None
        self.bye_sent = False
        self._prefix = prefix
        self._random = random
        self._client = client
        self._adopting = resume is not None
        self._number = 0
        self._frame_bytes = 0
        # Outgoing. `pending` is in the order of submission; `unanswered` counts Phase.SENT.
        self._pending: deque[Call] = deque()
        self._control: deque[bytes] = deque()
        self._bye: bytes | None = None
        self._in_flight = 0
        self._unanswered = 0
        # After a refusal.
        self._held = False
        self._refusals = 0
        self._retry_at: float | None = None
        self._probe: Call | None = None
        # Events.
        self._seq = 0
        self._acked = 0
        self._unacked_bytes = 0
        self._ack_at: float | None = None
        self._ack_now = False

    # Requests

    def submit(
        self,
        method: str,
        params: Any,
        request_id: str | None = None,
        timeout: float | None = None,
        on_disconnect: Literal["continue", "cancel"] = "continue",
    ) -> Call:
        """Put a request at the end of the line.

        Raises TooManyRequests, ValueError for an id in use or of a wrong length, and TypeError or
        ValueError for params that JSON cannot hold.
        """
        number = self._number + 1
        if request_id is None:
            request_id = f"{self._prefix}-{number}"
        elif not 0 < len(request_id) <= ID_LENGTH_MAX:
            raise ValueError(f"an id has 1 to {ID_LENGTH_MAX} characters, not {len(request_id)}")
        elif request_id in self.calls:
            raise ValueError(f"the request {request_id} is not finished: choose a new id")
        else:
            # Should it be the id of a request that ended, the server shall know that its end was
            # seen: it then says so, instead of leaving it at events that were sent long ago.
            self._ack_now = True
        request = wire.Request(request_id, method, Raw(encode(params)), timeout, on_disconnect)
        frame = encode(request)
        if len(self.calls) >= REQUESTS_MAX or self._frame_bytes >= REQUEST_BYTES_MAX:
            raise TooManyRequests(
                f"{len(self.calls)} requests are unfinished, {self._frame_bytes} bytes of them "
                "are not accepted yet: await ready() before each request"
            )
        call = Call(request_id, number, frame, self.buffer)
        self._number = number
        self._frame_bytes += len(frame)
        self.calls[request_id] = call
        self._pending.append(call)
        return call

    def cancel(self, call: Call) -> None:
        """Ask for the end of `call`; one that is not with the server ends at once."""
        if call.ended or call.cancelling:
            return
        call.cancelling = True
        if call.phase is not Phase.WAITING:
            if self.online:
                self._control.append(encode(wire.Cancel(call.id)))
        elif not call.doubtful:
            self._end(call, _cancelled(call))

    @property
    def has_room(self) -> bool:
        """Tell whether a request submitted now would be within the server's window."""
        return len(self.calls) < self.limits.window

    # Outgoing

    def hello(self, token: str) -> bytes:
        """Return the first message of a connection."""
        return encode(
            wire.Hello(
                token=token,
                session=self.session,
                epoch=self.epoch,
                seq=self._seq,
                client=self._client,
            )
        )

    def refresh(self, token: str) -> None:
        """Send a new token."""
        if self.online:
            self._control.append(encode(wire.Refresh(token)))

    def bye(self, *, cancel: bool) -> None:
        """End the session, after the requests that may be sent now; `bye_sent` tells when."""
        self._bye = encode(wire.Bye(cancel))

    def acknowledge(self) -> None:
        """Acknowledge what has come with the next message."""
        self._ack_now = True

    @property
    def has_output(self) -> bool:
        """Tell whether `take` may have something to send."""
        return bool(self._pending or self._control or self._ack_now or self._bye)

    def take(self) -> bytes:
        """Return the next message, empty when there is nothing to send now."""
        if not self.online:
            return b""
        frames = self._take_ack()
        room = min(self.limits.max_message_bytes, MESSAGE_BYTES_MAX) - sum(map(len, frames))
        control = self._control
        while control and (not frames or len(control[0]) < room):
            frames.append(control.popleft())
            room -= len(frames[-1]) + 1
        while (call := self._next()) is not None:
            if frames and len(call.frame) >= room:
                return b"\n".join(frames)
            self._send(call)
            frames.append(call.frame)
            room -= len(call.frame) + 1
        if self._bye is not None and not control and (not frames or len(self._bye) < room):
            frames.append(self._bye)
            self._bye = None
            self.bye_sent = True
            self.online = False
        return b"\n".join(frames)

    def _take_ack(self) -> list[bytes]:
        if not self._ack_now:
            return []
        self._ack_now = False
        self._ack_at = None
        if self._seq <= self._acked:
            return []
        self._acked = self._seq
        self._unacked_bytes = 0
        return [b'{"type":"ack","seq":%d}' % self._seq]

    def _next(self) -> Call | None:
        """Return the request at the head of the line if it may be sent now."""
        pending = self._pending
        while pending:
            call = pending[0]
            if call.phase is not Phase.WAITING:
                pending.popleft()
            elif len(call.frame) > self.limits.max_message_bytes:
                pending.popleft()
                self._end(call, _too_big(call, self.limits.max_message_bytes))
            elif self._held:
                return call if self._retry_at is None and not self._unanswered else None
            else:
                return call if self._in_flight < self.limits.window else None
        return None

    def _send(self, call: Call) -> None:
        self._pending.popleft()
        call.phase = Phase.SENT
        call.doubtful = True
        self._in_flight += 1
        self._unanswered += 1
        if self._held:
            self._probe = call
        if call.cancelling:
            # It was sent before, and its commit may have been on the way: only the server can
            # tell whether it runs.
            self._control.append(encode(wire.Cancel(call.id)))

    # Time

    @property
    def deadline(self) -> float | None:
        """When `tick` is to be called."""
        if self._ack_at is None or self._retry_at is None:
            return self._retry_at if self._ack_at is None else self._ack_at
        return min(self._ack_at, self._retry_at)

    def tick(self, now: float) -> None:
        """Do what is due at `now`."""
        if self._ack_at is not None and self._ack_at <= now:
            self._ack_at = None
            self._ack_now = True
        if self._retry_at is not None and self._retry_at <= now:
            self._retry_at = None

    # Connections

    def lost(self) -> None:
        """Note that the connection is gone."""
        self.online = False
        self._ack_at = self._retry_at = None
        self._acked = 0  # the last acknowledgement may not have arrived

    def welcome(self, frame: wire.Welcome, now: float) -> list[Call]:
        """Go on (or begin) on a new connection; return the requests that were taken over.

        Raises ConnectionFailed when the session to take over is not there.
        """
        if self._adopting and not frame.resumed:
            raise ConnectionFailed(f"the session {self.session} is not there: it ended or expired")
        if not frame.resumed:
            self._begin_anew()
        elif frame.epoch != self.epoch:
            self._seq = self._acked = 0
        self.session = frame.session
        self.epoch = frame.epoch
        self.limits = frame.limits
        self.expires_at = frame.expires_at
        self.reconnect_after_seconds = None
        self.online = True
        adopted = self._adopt(frame.requests) if self._adopting else []
        self._adopting = False
        self._continue({status.id: status for status in frame.requests})
        if self._seq > self._acked:
            self._ack_at = now + ACK_SECONDS
        return adopted

    def _begin_anew(self) -> None:
        """Begin a session; of an older one that the server does not know, save what can be."""
        self._seq = self._acked = 0
        for call in list(self.calls.values()):
            call.doubtful = False
            if call.phase is Phase.ACCEPTED:
                self._end(call, _session_lost(call))
            elif call.cancelling:
                self._end(call, _cancelled(call))

    def _adopt(self, manifest: Iterable[wire.RequestStatus]) -> list[Call]:
        """Make calls for the requests of another program."""
        adopted: list[Call] = []
        for status in manifest:
            self._number += 1
            call = Call(status.id, self._number, b"", self.buffer)
            call.suspect = True
            self.calls[call.id] = call
            adopted.append(call)
        return adopted

    def _continue(self, manifest: dict[str, wire.RequestStatus]) -> None:
        """Put what was never accepted into the line again, in order."""
        self._held = False
        self._refusals = 0
        self._retry_at = None
        self._probe = None
        self._control.clear()
        self._pending.clear()
        self._unanswered = self._in_flight = 0
        for call in list(self.calls.values()):
            status = manifest.get(call.id)
            if status is not None:
                self._in_flight += 1
                self._accept(call, status.n)
                if call.cancelling and status.state != "ended":
                    self._control.append(encode(wire.Cancel(call.id)))
            elif call.phase is Phase.ACCEPTED:
                # Sent again it could run again: the server remembers ids for a while only.
                self._in_flight += 1
                self._end(call, lost_results(call.id, "its end and its results"))
            else:
                call.phase = Phase.WAITING
                self._pending.append(call)

    def fail(self, message: str, code: int | None = None) -> None:
        """End every request: there will be no further connection."""
        self.online = False
        for call in list(self.calls.values()):
            self._end(call, ConnectionFailed(message, code))

    # What the server says

    def receive(self, frames: Iterable[wire.ServerFrame | FrameError], now: float) -> None:
        """Take the frames of one message; frames this client does not know are ignored."""
        for frame in frames:
            if isinstance(frame, wire.Result):
                self._result(frame)
            elif isinstance(frame, wire.Accepted):
                self._accepted(frame)
            elif isinstance(frame, wire.Done):
                self._done(frame)
            elif isinstance(frame, wire.Error):
                self._error(frame, now)
            elif isinstance(frame, wire.Refreshed):
                self.expires_at = frame.expires_at
            elif isinstance(frame, wire.GoAway):
                self.reconnect_after_seconds = frame.reconnect_after
        self._plan_ack(now)

    def _is_new(self, seq: int) -> bool:
        """Count the event `seq`; tell whether it is one that was not seen yet."""
        expected = self._seq + 1
        if seq < expected:
            return False
        if seq > expected:
            for call in self.calls.values():
                call.suspect = True
        self._seq = seq
        return True

    def _result(self, frame: wire.Result) -> None:
        if frame.seq and not self._is_new(frame.seq):
            return
        # A copy: the frame's data would keep the whole message in memory.
        data = bytes(frame.data)
        self._unacked_bytes += len(data) + ITEM_BYTES
        call = self.calls.get(frame.id)
        if call is not None:
            call.result(frame, data)

    def _done(self, frame: wire.Done) -> None:
        if self._is_new(frame.seq) and (call := self.calls.get(frame.id)) is not None:
            self._remove(call)
            call.done(frame)

    def _error(self, frame: wire.Error, now: float) -> None:
        if frame.seq is not None and not self._is_new(frame.seq):
            return
        call = self.calls.get(frame.id or "")
        if call is None:
            return
        if frame.seq is not None:
            self._remove(call)
            call.failed(frame)
        elif call.phase is not Phase.SENT:
            pass  # it was something else that was refused, such as a cancel that came too late
        elif not frame.retryable:
            self._remove(call)
            call.failed(frame)
        elif call.cancelling:
            self._end(call, _cancelled(call))
        else:
            self._refused(call, frame, now)

    def _accepted(self, frame: wire.Accepted) -> None:
        call = self.calls.get(frame.id)
        if call is None:
            return
        if frame.state == "acknowledged":
            self._end(call, lost_results(call.id, "its end and its results"))
            return
        if call.phase is Phase.SENT:
            self._unanswered -= 1
        elif call.phase is Phase.WAITING:
            self._in_flight += 1  # sent on the last connection, its commit was on the way
        self._accept(call, frame.n)

    def _accept(self, call: Call, n: int) -> None:
        call.phase = Phase.ACCEPTED
        call.n = n
        self._frame_bytes -= len(call.frame)
        call.frame = b""
        self._end_probe(call)

    def _refused(self, call: Call, frame: wire.Error, now: float) -> None:
        """Put `call` back into the line, to be sent again after a while."""
        call.phase = Phase.WAITING
        call.doubtful = False
        self._unanswered -= 1
        self._in_flight -= 1
        self._probe = None if self._probe is call else self._probe
        insort(self._pending, call, key=_number)
        self._held = True
        seconds = frame.retry_after or 0.0
        if self._retry_at is None:
            delay = backoff(self._refusals, RETRY_BASE_SECONDS, RETRY_CAP_SECONDS, self._random)
            self._retry_at = now + max(seconds, delay)
            self._refusals += 1
        else:
            self._retry_at = max(self._retry_at, now + seconds)
        if frame.code == ErrorCode.WINDOW_EXCEEDED:
            self._ack_now = True

    def _end_probe(self, call: Call) -> None:
        """Send freely again when the request sent alone after a refusal was not refused."""
        if self._probe is call:
            self._probe = None
            self._held = False
            self._refusals = 0

    def _end(self, call: Call, error: ClientError) -> None:
        self._remove(call)
        call.end(error)

    def _remove(self, call: Call) -> None:
        """Forget a request that ends."""
        del self.calls[call.id]
        if call.phase is not Phase.WAITING:
            self._in_flight -= 1
            if call.phase is Phase.SENT:
                self._unanswered -= 1
        self._frame_bytes -= len(call.frame)
        call.frame = b""
        self._end_probe(call)

    def _plan_ack(self, now: float) -> None:
        unacked = self._seq - self._acked
        if unacked and not self._ack_now:
            bytes_max = min(ACK_BYTES, self.limits.max_result_bytes // 4)
            if unacked >= ACK_EVENTS or self._unacked_bytes >= bytes_max:
                self._ack_now = True
            elif self._ack_at is None:
                self._ack_at = now + ACK_SECONDS


def _number(call: Call) -> int:
    return call.number


def _cancelled(call: Call) -> RequestFailed:
    return RequestFailed(ErrorCode.CANCELLED, "cancelled before the server accepted it", id=call.id)


def _too_big(call: Call, bytes_max: int) -> RequestFailed:
    return RequestFailed(
        ErrorCode.MESSAGE_TOO_BIG,
        f"the request has {len(call.frame)} bytes, the server takes {bytes_max}",
        id=call.id,
    )


def _session_lost(call: Call) -> RequestFailed:
    return RequestFailed(
        SESSION_LOST,
        "the server does not know the session any more: this request was accepted and may or "
        "may not have run",
        id=call.id,
    )
