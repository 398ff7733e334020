"""The rules of one session: order, dedupe, window, events, acknowledgement, resume. No I/O.

    request   -> accepted entry -> [committed] `accepted` to the client, request to the worker
    worker    -> start, result ..., finish
    finish    -> finished entry -> [committed] `done` or `error` to the client
    ack       -> leaves the live set

This file owns every transition of a session; nobody else changes that state. Journaled facts are
in `state` (changed only by the fold's own functions, the moment an entry is put into the log);
what else is here lives as long as the epoch: event numbers, the connection, the running request.
"""

import zlib
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, Final, Protocol

from msgspec import Raw, Struct

from protocol import frames as wire
from protocol.codec import encode
from protocol.codes import RETRYABLE, ErrorCode
from server.journal.entries import (
    DONE,
    Accepted,
    Acked,
    Authorized,
    Closed,
    Entry,
    Finished,
    Opened,
    Results,
    Started,
    encode_error,
)
from server.journal.state import RequestState, SessionState

END: Final = -1
"""The index of the event that ends a request."""
EVENT_BYTES: Final = 128
"""What an unacknowledged event is counted for beside its data, so that tiny results add up."""
PIECE_BYTES: Final = 256 * 1024
"""A running stream goes into the journal in pieces of about this size."""


class Refused(Exception):
    """A request that is not accepted: `code` and a message that says what to do."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class ResultTooLarge(Exception):
    """The session holds as many unacknowledged result bytes as it may."""


class Journal(Protocol):
    """Where entries go (journal/committer.py)."""

    available: bool

    def commit(self, entry: Entry, notify: Callable[[Any], None], argument: Any) -> None:
        """Put `entry` into the log and call `notify(argument)` when it is durable."""
        ...

    def ride(self, entry: Entry) -> None:
        """Put `entry` into the log with whatever is committed next."""
        ...


class Work(Protocol):
    """Who runs the requests of a session (worker.py)."""

    def put(self, request: RequestState) -> None:
        """Run `request` after those put before it."""
        ...

    def stop(self, request: RequestState, code: ErrorCode) -> None:
        """End the running `request` with `code`."""
        ...


class Out(Protocol):
    """Where frames go (outbox.py); `full` asks to hold events back."""

    @property
    def full(self) -> bool:
        """Tell whether to wait before adding events."""
        ...

    def put(self, frame: bytes) -> None:
        """Send `frame`."""
        ...

    async def room(self) -> None:
        """Wait until it is no longer full (for the worker)."""
        ...


class Limits(Struct, frozen=True):
    """The bounds of every session (settings of the same names; bytes and counts)."""

    window: int
    max_unacked: int
    max_result_bytes: int


class Memory:
    """What the unacknowledged results of all sessions are counted for; `limit_bytes` bounds it.

    At the bound no session takes further requests; those taken run on, each session within its
    own `max_result_bytes`.
    """

    __slots__ = ("held_bytes", "limit_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0

    @property
    def full(self) -> bool:
        """Tell whether further requests must be refused."""
        return self.held_bytes >= self.limit_bytes


class Rules(Struct, frozen=True):
    """What all sessions of a process share.

    `check(method, params, scope)` raises Refused for what must not run. `advertised` and `server`
    go into every `welcome`.
    """

    epoch: str
    limits: Limits
    memory: Memory
    journal: Journal
    check: Callable[[str, Raw, str], object]
    clock: Callable[[], float]
    advertised: wire.Limits
    server: wire.ServerInfo


class Session:
    """One session in one epoch."""

    __slots__ = (
        "_committed_n",
        "_cursor",
        "_ending",
        "_events",
        "_ghosts",
        "_lagging",
        "_next_seq",
        "_produced",
        "_rules",
        "_running",
        "_tail",
        "_tail_bytes",
        "_tail_first",
        "_unacked_bytes",
        "_unfinished",
        "_wants_started",
        "out",
        "state",
        "work",
    )

    def __init__(self, state: SessionState, rules: Rules, work: Work) -> None:
        self.state = state
        self.work = work
        self.out: Out | None = None
        self._rules = rules
        self._committed_n = state.last_n
        self._unfinished = 0
        # Requests cancelled while they waited: ended, but still in the worker's queue.
        self._ghosts = 0
        # Ended, but their end is not durable yet.
        self._ending: set[int] = set()
        # Unacknowledged events; the last one has the number _next_seq - 1.
        self._events: deque[tuple[RequestState, int]] = deque()
        self._next_seq = 1
        self._unacked_bytes = 0
        # While lagging, events from number _cursor on wait for room in `out`.
        self._lagging = False
        self._cursor = 1
        self._wants_started = False
        # The running request: items not journaled yet, from index _tail_first on.
        self._running: RequestState | None = None
        self._tail: list[bytes] = []
        self._tail_first = 0
        self._tail_bytes = 0
        self._produced = 0

    # Opening, recovering, ending

    @classmethod
    def open(cls, session_id: str, subject: str, scope: str, rules: Rules, work: Work) -> "Session":
        """Begin a new session. It becomes durable with its first accepted request."""
        rules.journal.ride(Opened(session_id, subject, scope, rules.clock()))
        return cls(SessionState(session_id, subject, scope), rules, work)

    def recover(self) -> None:
        """Number the events that wait for the client; put what is unfinished to the worker."""
        for request in self.state.live.values():
            if request.outcome is None:
                self._unfinished += 1
                self.work.put(request)
            else:
                for index in range(request.dropped, request.dropped + len(request.results)):
                    self._events.append((request, index))
                    data = request.results[index - request.dropped]
                    self._hold(len(data) + EVENT_BYTES)
                self._events.append((request, END))
        self._next_seq = len(self._events) + 1

    def authorize(self, scope: str) -> None:
        """Accept further requests under `scope` (of a newer token)."""
        if scope != self.state.scope:
            self.state.scope = scope
            self._rules.journal.ride(Authorized(self.state.id, scope))

    def close(self, *, cancel: bool) -> None:
        """End the session: accepted requests run on (or are cancelled), results are not kept."""
        if self.state.closed:
            return
        if cancel:
            for request in list(self.state.live.values()):
                self._cancel(request)
        self._rules.journal.ride(Closed(self.state.id))
        self.state.close()
        self._events.clear()
        self._tail = []
        self._tail_bytes = 0
        self._hold(-self._unacked_bytes)

    def expire_results(self, before: float) -> None:
        """Forget ended requests that were accepted before that Unix time (`result_ttl`)."""
        old = [
            r.n
            for r in self.state.live.values()
            if r.outcome is not None and r.n not in self._ending and r.time < before
        ]
        if old:
            for n in old:
                request = self.state.live[n]
                self._release_bytes(request)
                request.results = []  # events still refer to the request
            self._acknowledge(Acked(self.state.id, old, 0, 0))

    @property
    def unfinished(self) -> int:
        """How many requests were taken and have not ended."""
        return self._unfinished

    @property
    def unacked_bytes(self) -> int:
        """What the results that wait for an acknowledgement are counted for."""
        return self._unacked_bytes

    # The connection

    def attach(self, out: Out, hello: wire.Hello, expires_at: float, reason: str | None) -> None:
        """Answer `hello` on a new connection, then send the events the client has not seen."""
        resumed = hello.session == self.state.id
        self.out = out
        self._wants_started = hello.started
        first = self._next_seq - len(self._events)
        self._cursor = first
        if resumed and hello.epoch == self._rules.epoch and first <= hello.seq < self._next_seq:
            self._cursor = hello.seq + 1
        self._lagging = self._cursor < self._next_seq
        out.put(
            encode(
                wire.Welcome(
                    session=self.state.id,
                    resumed=resumed,
                    reason=reason,
                    epoch=self._rules.epoch,
                    seq=self._next_seq - 1,
                    requests=self.manifest(),
                    expires_at=expires_at,
                    limits=self._rules.advertised,
                    server=self._rules.server,
                )
            )
        )
        self.refill()

    def detach(self, out: Out) -> None:
        """Forget a connection that is gone; cancels what asked to be cancelled with it."""
        if self.out is not out:
            return
        self.out = None
        self._lagging = False
        for request in [r for r in self.state.live.values() if r.cancel_on_disconnect]:
            self._cancel(request)

    def manifest(self) -> list[wire.RequestStatus]:
        """List every durable request that is unfinished or unacknowledged, in `n` order."""
        return [
            wire.RequestStatus(r.id, r.n, self._phase(r), r.attempt, self._results(r))
            for r in self.state.live.values()
            if r.n <= self._committed_n
        ]

    def _phase(self, request: RequestState) -> wire.RequestPhase:
        if request is self._running or request.n in self._ending:
            return "running"
        return "waiting" if request.outcome is None else "ended"

    def _results(self, request: RequestState) -> int:
        return self._produced if request is self._running else request.total

    @property
    def lagging(self) -> bool:
        """Tell whether events wait for room in `out`."""
        return self._lagging

    def refill(self) -> None:
        """Send waiting events until there is none or `out` is full; call when it has room."""
        out = self.out
        if out is None or not self._lagging:
            return
        first = self._next_seq - len(self._events)
        self._cursor = max(self._cursor, first)
        for request, index in islice(self._events, self._cursor - first, None):
            if out.full:
                return
            frame = self._event_frame(self._cursor, request, index)
            if frame is not None:
                out.put(frame)
            self._cursor += 1
        self._lagging = False

    def _event_frame(self, seq: int, request: RequestState, index: int) -> bytes | None:
        if self.state.live.get(request.n) is not request:
            return None  # its results expired
        if index == END:
            return _end_frame(seq, request)
        if request is self._running and index >= self._tail_first:
            data = self._tail[index - self._tail_first]
        else:
            data = request.results[index - request.dropped]
        return _result_frame(seq, request, index, data)

    # What the client says

    def receive(self, frame: wire.ClientFrame) -> None:
        """Take any frame but those of the handshake (`hello`, `refresh`, `bye`)."""
        match frame:
            case wire.Request():
                self._request(frame)
            case wire.Ack():
                self._ack(frame.seq)
            case wire.Cancel():
                self._cancel_by_id(frame.id)
            case wire.Hello() | wire.Refresh() | wire.Bye():
                self.refuse(ErrorCode.BAD_FRAME, f"{type(frame).__name__.lower()}: not now")

    def refuse(self, code: ErrorCode, message: str, request_id: str | None = None) -> None:
        """Tell the client that a frame was not taken."""
        if self.out is not None:
            self.out.put(refusal(code, message, request_id))

    def _request(self, frame: wire.Request) -> None:
        state = self.state
        params = bytes(frame.params)
        digest = zlib.crc32(params, zlib.crc32(frame.method.encode()))
        known = state.ids.get(frame.id)
        if known is not None:
            self._repeat(state.live[known], digest)
            return
        acknowledged = state.acknowledged(frame.id)
        if acknowledged is not None:
            self._repeat_acknowledged(frame.id, *acknowledged, digest)
            return
        try:
            self._check(frame)
        except Refused as refused:
            self.refuse(refused.code, str(refused), frame.id)
            return
        entry = Accepted(
            state.id,
            state.last_n + 1,
            frame.id,
            frame.method,
            params,
            digest,
            state.subject,
            self._rules.clock(),
            frame.timeout,
            frame.on_disconnect == "cancel",
        )
        request = state.accept(entry)
        self._unfinished += 1
        self._rules.journal.commit(entry, self._accepted, request)

    def _check(self, frame: wire.Request) -> None:
        limits = self._rules.limits
        if self._unfinished + self._ghosts >= limits.window:
            raise Refused(
                ErrorCode.WINDOW_EXCEEDED,
                f"{limits.window} requests are unfinished: send again when one has ended",
            )
        unacked = len(self.state.live) - self._unfinished
        if unacked >= limits.max_unacked or self._unacked_bytes >= limits.max_result_bytes:
            raise Refused(
                ErrorCode.WINDOW_EXCEEDED,
                f"{unacked} ended requests with {self._unacked_bytes} bytes of results "
                "are unacknowledged: send ack, then send again",
            )
        if self._rules.memory.full:
            raise Refused(
                ErrorCode.OVERLOADED,
                "the server holds as many unacknowledged results as it may: send again later",
            )
        if not self._rules.journal.available:
            raise Refused(
                ErrorCode.JOURNAL_UNAVAILABLE,
                "the journal cannot be written now: nothing was accepted, send again later",
            )
        self._rules.check(frame.method, frame.params, self.state.scope)

    def _repeat(self, request: RequestState, digest: int) -> None:
        if digest != request.digest:
            self._conflict(request.id)
        elif request.n <= self._committed_n and self.out is not None:
            self.out.put(
                encode(
                    wire.Accepted(request.id, request.n, duplicate=True, state=self._phase(request))
                )
            )
        # Otherwise its commit is on the way, and so is `accepted`.

    def _repeat_acknowledged(self, request_id: str, n: int, known_digest: int, digest: int) -> None:
        if digest != known_digest:
            self._conflict(request_id)
        elif self.out is not None:
            self.out.put(encode(wire.Accepted(request_id, n, duplicate=True, state="acknowledged")))

    def _conflict(self, request_id: str) -> None:
        self.refuse(
            ErrorCode.ID_CONFLICT,
            "this id was used in this session for a request with other method or params: "
            "choose a new id",
            request_id,
        )

    def _accepted(self, request: RequestState) -> None:
        self._committed_n = request.n
        if self.out is not None:
            self.out.put(b'{"type":"accepted","id":%b,"n":%d}' % (encode(request.id), request.n))
        self.work.put(request)

    def _cancel_by_id(self, request_id: str) -> None:
        n = self.state.ids.get(request_id)
        if n is not None:
            self._cancel(self.state.live[n])
        elif self.state.acknowledged(request_id) is None:
            self.refuse(
                ErrorCode.BAD_FRAME, "cancel: this session has no request of that id", request_id
            )

    def _cancel(self, request: RequestState) -> None:
        if request.outcome is not None:
            return  # its end is on the way
        if request is self._running:
            self.work.stop(request, ErrorCode.CANCELLED)
        else:
            self._ghosts += 1
            self._finish(request, ErrorCode.CANCELLED, _CANCELLED)

    def _ack(self, seq: int) -> None:
        events = self._events
        sent = self._cursor if self._lagging else self._next_seq
        if seq >= sent:
            self.refuse(
                ErrorCode.BAD_FRAME, f"ack: {seq} is beyond the last event sent, {sent - 1}"
            )
            return
        count = seq - (self._next_seq - len(events)) + 1
        ended: list[int] = []
        partial: RequestState | None = None
        results = 0
        for _ in range(count):
            request, index = events.popleft()
            if index == END:
                if request.n in self.state.live:
                    self._release_bytes(request)
                    ended.append(request.n)
                if partial is request:
                    partial = None
            else:
                partial = request
                results = index + 1
        if partial is not None and partial.n in self.state.live:
            self._release_bytes(partial, results)
            self._acknowledge(Acked(self.state.id, ended, partial.n, results))
        elif ended:
            self._acknowledge(Acked(self.state.id, ended, 0, 0))

    def _acknowledge(self, entry: Acked) -> None:
        self.state.acknowledge(entry)
        self._rules.journal.ride(entry)

    def _release_bytes(self, request: RequestState, upto: int | None = None) -> None:
        """Take results before index `upto` (default: all) out of the count, and out of the tail."""
        held = request.results
        if upto is not None:
            held = held[: max(0, upto - request.dropped)]
            if request is self._running and upto > self._tail_first:
                acked = self._tail[: upto - self._tail_first]
                del self._tail[: len(acked)]
                self._tail_first = upto
                self._tail_bytes -= sum(map(len, acked))
                held = held + acked
        self._hold(-(sum(map(len, held)) + EVENT_BYTES * len(held)))

    def _hold(self, size: int) -> None:
        """Count `size` bytes of unacknowledged results more."""
        self._unacked_bytes += size
        self._rules.memory.held_bytes += size

    # What the worker says

    def start(self, request: RequestState) -> None:
        """Note that the handler runs next, once more than before."""
        entry = Started(self.state.id, request.n, request.attempt + 1, self._rules.clock())
        self.state.start(request, entry)
        self._rules.journal.ride(entry)
        self._running = request
        self._tail_first = 0
        self._produced = 0
        if self._wants_started and self.out is not None:
            self.out.put(encode(wire.Started(request.id, request.attempt)))

    def skip(self) -> None:
        """Note that the worker came past a request that was cancelled while it waited."""
        self._ghosts -= 1

    def result(self, request: RequestState, data: bytes) -> None:
        """Send one item of the running request and keep it until it is acknowledged.

        Raises ResultTooLarge when the session would hold more than `max_result_bytes`.
        """
        if self.state.closed:
            self._produced += 1
            return
        size = len(data) + EVENT_BYTES
        if self._unacked_bytes + size > self._rules.limits.max_result_bytes:
            raise ResultTooLarge
        self._hold(size)
        self._tail.append(data)
        self._tail_bytes += len(data)
        index = self._produced
        self._produced = index + 1
        self._event(request, index, data)
        if self._tail_bytes >= PIECE_BYTES:
            entry = Results(self.state.id, request.n, self._tail_first, self._tail)
            self.state.add_results(request, entry)
            self._rules.journal.commit(entry, _nothing, None)
            self._take_tail()

    def live_result(self, request: RequestState, data: bytes) -> None:
        """Send one item of a method declared live: it has no number and is not kept."""
        if self.out is not None:
            self.out.put(_result_frame(0, request, self._produced, data))
        self._produced += 1

    def finish(self, request: RequestState, outcome: str, error: bytes = b"") -> None:
        """End a request that runs, or that must not run: outcome DONE, or a code with its text."""
        self._finish(request, outcome, error)

    def _finish(self, request: RequestState, outcome: str, error: bytes) -> None:
        running = request is self._running
        first, items = self._take_tail() if running else (0, [])
        produced = self._produced if running else 0
        self._running = None if running else self._running
        entry = Finished(
            self.state.id,
            request.n,
            request.attempt,
            first,
            items,
            produced,
            outcome,
            error,
            self._rules.clock(),
        )
        self.state.finish(request, entry)
        self._unfinished -= 1
        self._ending.add(request.n)
        self._rules.journal.commit(entry, self._ended, request)

    def _take_tail(self) -> tuple[int, list[bytes]]:
        first, items = self._tail_first, self._tail
        self._tail_first = first + len(items)
        self._tail = []
        self._tail_bytes = 0
        return first, items

    def _ended(self, request: RequestState) -> None:
        self._ending.discard(request.n)
        if not self.state.closed:
            self._event(request, END, b"")

    def _event(self, request: RequestState, index: int, data: bytes) -> None:
        seq = self._next_seq
        self._next_seq = seq + 1
        self._events.append((request, index))
        out = self.out
        if out is None or self._lagging:
            return
        if out.full:
            self._lagging = True
            self._cursor = seq
        elif index == END:
            out.put(_end_frame(seq, request))
        else:
            out.put(_result_frame(seq, request, index, data))


_CANCELLED: Final = encode_error(ErrorCode.CANCELLED, "cancelled by the client", retryable=False)


def refusal(code: ErrorCode, message: str, request_id: str | None = None) -> bytes:
    """Return an `error` frame that ends nothing: what it answers was not taken."""
    return encode(
        wire.Error(code=code, message=message, retryable=code in RETRYABLE, id=request_id)
    )


def _result_frame(seq: int, request: RequestState, index: int, data: bytes) -> bytes:
    if seq == 0:
        return b'{"type":"result","id":%b,"attempt":%d,"index":%d,"data":%b}' % (
            encode(request.id),
            request.attempt,
            index,
            data,
        )
    return b'{"type":"result","id":%b,"seq":%d,"attempt":%d,"index":%d,"data":%b}' % (
        encode(request.id),
        seq,
        request.attempt,
        index,
        data,
    )


def _end_frame(seq: int, request: RequestState) -> bytes:
    if request.outcome == DONE:
        return b'{"type":"done","id":%b,"seq":%d,"attempt":%d,"results":%d}' % (
            encode(request.id),
            seq,
            request.attempt,
            request.total,
        )
    # The error text was encoded once, as a JSON object; its braces are replaced by these.
    return b'{"type":"error","id":%b,"seq":%d,"attempt":%d,%b' % (
        encode(request.id),
        seq,
        request.attempt,
        request.error[1:],
    )


def _nothing(_: object) -> None:
    """Take the news of a commit nobody waits for."""
