"""The rules of one session: order, dedupe, window, events, acknowledgement, resume. No I/O.

    message   -> accepted entry -> [committed] `accepted` to the client, requests to the worker
    worker    -> start, result ..., finish
    finish    -> finished entry -> [committed] `done` or `error` to the client
    ack       -> leaves the live set

This file owns every transition of a session; nobody else changes that state. Journaled facts are
in `state` (changed only by the fold's own functions, the moment the entry is made); what else is
here lives as long as the epoch: event numbers, the connection, the running request.

A session is a source of the journal: entries gather in it, the journal cuts them off when it
makes its next commit, and says when that is durable.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final, Protocol

from msgspec import UNSET, Raw, Struct, UnsetType, field
from msgspec.json import Decoder

from protocol import frames as wire
from protocol.codec import FrameError, encode, encode_message
from protocol.codes import RETRYABLE, ErrorCode
from server.counts import Counts, SessionEnd
from server.journal.entries import (
    DONE,
    Accepted,
    Acked,
    Authorized,
    Closed,
    End,
    Entry,
    Finished,
    Opened,
    Results,
    Source,
    Started,
    encode_error,
)
from server.journal.state import RequestState, SessionState, digest
from server.load import Load, Shares
from server.rate import RateLimit

FRAME_BYTES: Final = 128
"""What a frame is counted for beside the data in it."""
END: Final = -1
"""The index of the event that ends a request."""
EVENT_BYTES: Final = 128
"""What an unacknowledged event is counted for beside its data, so that tiny results add up."""
STATUS_BYTES: Final = 256
"""What a line of the manifest is counted for."""
PREPARED_BYTES_MAX: Final = 1024
"""The arguments made of longer params are made again when the request runs, not kept till then."""
PREPARED_FACTOR: Final = 16
"""Params count for so many times their length while their arguments are kept beside them: `[[],`
takes 3 bytes as text and 64 as an argument."""
PINNED_FACTOR: Final = 2
"""Params are copied out of a message longer than so many times what they count for."""
REFUSALS_MAX: Final = 1024
"""A message may bring so many frames that are only answered: a refusal costs more than its frame,
and other sessions wait meanwhile."""
TURN_SECONDS: Final = 2.0
"""After a refusal further requests wait so long for the refused one to come again."""
BY_CLIENT: Final = "cancelled by the client"
BY_OPERATOR: Final = "cancelled by an operator"
PIECE_BYTES: Final = 256 * 1024
"""A running stream goes into the journal in pieces of about this size."""


class Refused(Exception):
    """A request that is not accepted: `code` and a message that says what to do.

    `retry_after_seconds` is when to send it again, if that is known.
    """

    def __init__(
        self, code: ErrorCode, message: str, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_seconds = retry_after_seconds


class Flooded(Exception):
    """A message had more than REFUSALS_MAX frames to refuse; the rest of it was not taken."""


class ResultTooLarge(Exception):
    """The session holds as many unacknowledged result bytes as it may."""


class Journal(Protocol):
    """Where entries go (journal/committer.py)."""

    @property
    def available(self) -> bool:
        """Tell whether it can be written now."""
        ...

    def commit(self, source: Source) -> None:
        """Make what `source` has durable soon."""
        ...

    def ride(self, source: Source) -> None:
        """Make what `source` has durable with whatever is committed next."""
        ...

    def bulk(self, source: Source) -> None:
        """Make what `source` has, which is much, durable when its turn comes."""
        ...

    def forget(self, source: Source) -> None:
        """Ask `source` for nothing: it has taken back what it had."""
        ...


class Work(Protocol):
    """Who runs the requests of a session (worker.py)."""

    def put(self, batch: Sequence[RequestState]) -> None:
        """Run the requests of `batch`, one by one, after those put before."""
        ...

    def stop(self, request: RequestState, code: ErrorCode, message: str) -> None:
        """End the running `request` with `code` and a message for people."""
        ...


class Out(Protocol):
    """Where frames go (outbox.py); `full` asks to hold events back."""

    @property
    def full(self) -> bool:
        """Tell whether to wait before adding events."""
        ...

    def put(self, frame: wire.ServerFrame | Raw, size: int = FRAME_BYTES) -> None:
        """Send `frame`, which takes about `size` bytes; a Raw holds frames that are encoded."""
        ...

    def put_all(self, frames: Sequence[wire.ServerFrame], sizes: Sequence[int]) -> None:
        """Send `frames`, which take about `sizes` bytes."""
        ...

    async def room(self) -> None:
        """Wait until it is no longer full (for the worker)."""
        ...


class Limits(Struct, frozen=True):
    """The bounds of every session (settings of the same names; bytes and counts)."""

    window: int
    max_unacked: int
    max_result_bytes: int
    max_params_bytes: int = 2**20
    requests_per_second: int = 50_000


class Memory(Shares):
    """What unfinished requests and unacknowledged results of all sessions are counted for."""

    __slots__ = ()

    @property
    def limit_bytes(self) -> int:
        """What all subjects may have."""
        return self.limit

    @property
    def held_bytes(self) -> int:
        """What all subjects have."""
        return self.held


class Rules(Struct, frozen=True):
    """What all sessions of a process share.

    `check(method, params, scope)` raises Refused for what must not run; what it returns is handed
    to the worker. `note(session, ended)` is told after each commit of the session, for the request
    log. `advertised` and `server` go into every `welcome`. `counts` is told what happens, `load` is
    what all sessions have to do.
    """

    epoch: str
    limits: Limits
    memory: Memory
    journal: Journal
    check: Callable[[str, Raw, str], object]
    note: "Callable[[Session, Sequence[RequestState]], None]"
    clock: Callable[[], float]
    advertised: wire.Limits
    server: wire.ServerInfo
    counts: Counts = field(default_factory=Counts)
    load: Load = field(default_factory=Load)


_NOTHING: Final[tuple[list[RequestState], list[bytes], list[RequestState]]] = ([], [], [])


class Session:
    """One session in one epoch."""

    __slots__ = (
        "_accepted",
        "_committed_n",
        "_counts",
        "_cursor",
        "_ended",
        "_ending",
        "_ends",
        "_entries",
        "_events",
        "_forced",
        "_ghosts",
        "_in_flight",
        "_lagging",
        "_n_max",
        "_next_seq",
        "_noted",
        "_produced",
        "_rate",
        "_refused_code",
        "_refused_id",
        "_refused_until",
        "_replies",
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
        self._counts = rules.counts
        self._committed_n = state.last_n
        self._unfinished = 0
        limits = rules.limits
        self._rate = RateLimit(
            limits.requests_per_second, max(limits.requests_per_second, limits.window)
        )
        # The `n` up to which it allows requests of the present message.
        self._n_max = 0
        # The first request that was refused for now: until it comes again, and for a while, others
        # are refused too. They were on their way behind it, and would overtake it.
        self._refused_id: str | None = None
        self._refused_code = ErrorCode.OVERLOADED
        self._refused_until = 0.0
        # Requests cancelled while they waited: ended, but still in the worker's queue.
        self._ghosts = 0
        # Ended, but their end is not durable yet.
        self._ending: set[int] = set()
        # Unacknowledged events: the request, the index of a result or END, the size it is counted
        # for. The last one has the number _next_seq - 1.
        self._events: deque[tuple[RequestState, int, int]] = deque()
        self._next_seq = 1
        self._unacked_bytes = 0
        # While lagging, events from number _cursor on wait for room in `out`.
        self._lagging = False
        self._cursor = 1
        self._wants_started = False
        # The running request: items not journaled yet, from index _tail_first on. _noted tells
        # whether its start is in the log.
        self._running: RequestState | None = None
        self._noted = True
        self._tail: list[bytes] = []
        self._tail_first = 0
        self._tail_bytes = 0
        self._produced = 0
        # Since the last cut: entries in order, those of the last Finished one while it is open,
        # what was accepted, the frames that say so, and what ended; _forced tells whether a commit
        # was asked for.
        self._entries: list[Entry] = []
        self._ends: list[End] | None = None
        self._accepted: list[RequestState] = []
        self._replies: list[bytes] = []
        self._ended: list[RequestState] = []
        self._forced = False
        # The same three of the commit that is on its way.
        self._in_flight = _NOTHING

    # Opening, recovering, ending

    @classmethod
    def open(cls, session_id: str, subject: str, scope: str, rules: Rules, work: Work) -> "Session":
        """Begin a new session. It becomes durable with its first accepted request."""
        session = cls(SessionState(session_id, subject, scope), rules, work)
        session._append(Opened(session_id, subject, scope, rules.clock()))
        rules.counts.opened += 1
        return session

    def recover(self) -> None:
        """Number the events that wait for the client; put what is unfinished to the worker."""
        unfinished: list[RequestState] = []
        for request in self.state.live.values():
            if request.outcome is None:
                unfinished.append(request)
                request.kept_bytes = len(request.params)
                self._rules.memory.hold(self.state.subject, request.kept_bytes)
            else:
                for index, data in enumerate(request.results, request.dropped):
                    size = len(data) + EVENT_BYTES
                    self._hold(size)
                    self._events.append((request, index, size))
                self._hold(len(request.error))
                self._events.append((request, END, len(request.error)))
        self._unfinished = len(unfinished)
        self._rules.load.unfinished.hold(self.state.subject, len(unfinished))
        if unfinished:
            self.work.put(unfinished)
        self._next_seq = len(self._events) + 1

    def authorize(self, scope: str) -> None:
        """Accept further requests under `scope` (of a newer token)."""
        if scope != self.state.scope:
            self.state.scope = scope
            if self._entries and isinstance(self._entries[-1], Authorized):
                # Tokens may change while nothing is committed: only the last of them counts.
                self._entries.pop()
            self._append(Authorized(self.state.id, scope))

    def close(self, *, cancel: bool, why: SessionEnd = "bye") -> None:
        """End the session: accepted requests run on (or are cancelled), results are not kept."""
        if self.state.closed:
            return
        self._counts.ended[why] += 1
        if cancel:
            for request in list(self.state.live.values()):
                self._cancel(request)
        if self.state.last_n == 0 and self._entries and type(self._entries[0]) is Opened:
            # The log has not heard of it and need not: else sessions that come and go would pile
            # up while the journal is away.
            self._entries = []
            self._rules.journal.forget(self)
        else:
            self._append(Closed(self.state.id))
        self.state.close()
        self._events.clear()
        self._tail = []
        self._tail_bytes = 0
        self._hold(-self._unacked_bytes)

    def cancel(self, n: int) -> None:
        """Cancel request `n` for an operator, as its client could; what has ended stays so."""
        request = self.state.live.get(n)
        if request is not None:
            self._cancel(request, BY_OPERATOR)

    def expire_results(self, before: float) -> None:
        """Forget ended requests that were accepted before that Unix time (`result_ttl`)."""
        old = [
            r.n
            for r in self.state.live.values()
            if r.outcome is not None and r.n not in self._ending and r.time < before
        ]
        if old:
            expired = set(old)
            self._hold(-sum(size for r, _, size in self._events if r.n in expired))
            # They keep their numbers, but count for nothing.
            self._events = deque(
                (r, index, 0 if r.n in expired else size) for r, index, size in self._events
            )
            self._acknowledge(Acked(self.state.id, old, 0, 0))

    def checkpoint(self) -> int:
        """Put all of this session into the log, so that what it said before can go.

        Returns about how many bytes that is.
        """
        self._append(self.state.snapshot())
        live = self.state.live.values()
        return sum(len(r.params) + sum(map(len, r.results)) + EVENT_BYTES for r in live)

    @property
    def epoch(self) -> str:
        """The epoch that numbers its events."""
        return self._rules.epoch

    @property
    def unfinished(self) -> int:
        """How many requests were taken and have not ended."""
        return self._unfinished

    def unended(self) -> list[RequestState]:
        """Return the requests whose acceptance is durable and whose end is not."""
        return [
            request
            for request in self.state.live.values()
            if request.n <= self._committed_n
            and (request.outcome is None or request.n in self._ending)
        ]

    def oldest_unfinished_at(self) -> float:
        """Return the Unix time at which the oldest unfinished request came; infinity without."""
        if self._unfinished:
            for request in self.state.live.values():
                if request.outcome is None:
                    return request.time
        return math.inf

    @property
    def unacked_bytes(self) -> int:
        """What the results that wait for an acknowledgement are counted for."""
        return self._unacked_bytes

    # The connection

    def attach(self, out: Out, hello: wire.Hello, expires_at: float, reason: str | None) -> None:
        """Answer `hello` on a new connection, then send the events the client has not seen."""
        resumed = hello.session == self.state.id
        self.out = out
        self._refused_id = None  # what was on its way on another connection does not arrive
        self._wants_started = hello.started
        first = self._next_seq - len(self._events)
        self._cursor = first
        if resumed and hello.epoch == self._rules.epoch and first <= hello.seq < self._next_seq:
            self._cursor = hello.seq + 1
        self._lagging = self._cursor < self._next_seq
        self._count_resume(hello, resumed)
        manifest = self.manifest()
        welcome = wire.Welcome(
            session=self.state.id,
            resumed=resumed,
            reason=reason,
            epoch=self._rules.epoch,
            seq=self._next_seq - 1,
            requests=manifest,
            expires_at=expires_at,
            limits=self._rules.advertised,
            server=self._rules.server,
        )
        out.put(welcome, FRAME_BYTES + STATUS_BYTES * len(manifest))
        self.refill()

    def _count_resume(self, hello: wire.Hello, resumed: bool) -> None:
        if hello.session is not None:
            same = "same_epoch" if hello.epoch == self._rules.epoch else "new_epoch"
            self._counts.resumes[same if resumed else "unknown"] += 1

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
        for request, index, _ in islice(self._events, self._cursor - first, None):
            if out.full:
                return
            if self.state.live.get(request.n) is request:  # otherwise its results expired
                if index == END:
                    out.put(_end_frame(self._cursor, request), FRAME_BYTES + len(request.error))
                else:
                    data = self._data(request, index)
                    frame = _result_frame(self._cursor, request, index, data)
                    out.put(frame, FRAME_BYTES + len(data))
            self._cursor += 1
        self._lagging = False

    def _data(self, request: RequestState, index: int) -> bytes:
        if request is self._running and index >= self._tail_first:
            return self._tail[index - self._tail_first]
        return request.results[index - request.dropped]

    # What the client says

    def receive(
        self, frames: Sequence[wire.ClientFrame | FrameError], message: str | None
    ) -> tuple[wire.Refresh, Sequence[wire.ClientFrame | FrameError]] | None:
        """Take the frames of a message up to a `refresh`, which needs I/O.

        Returns that `refresh` and what follows it, or None when all is done. `message` is the
        text of `frames`; None when they are what was left of one. Raises Flooded: then the
        connection is to be closed.
        """
        now = self._rules.clock()
        first = len(self._accepted)
        acks = refusals = kept = 0
        if self._refused_id is not None:
            self._look_for_refused(frames, now)
        last_n = self.state.last_n
        self._n_max = last_n + self._rate.room(now)
        room = self._room()
        try:
            for position, frame in enumerate(frames):
                if isinstance(frame, wire.Request):
                    if size := self._request(frame, now, room):
                        kept += size
                        room -= 1
                        continue
                    refusals += 1
                elif isinstance(frame, wire.Ack):
                    acks += 1
                    refusals += not self._ack(frame.seq)
                elif isinstance(frame, wire.Refresh):
                    return frame, frames[position + 1 :]
                else:
                    # What it may undo must be in the log before it.
                    self._log_accepted(first, None, now, kept)
                    first = len(self._accepted)
                    kept = 0
                    refusals += 1
                    if not self._rare(frame):
                        break
                if refusals > REFUSALS_MAX:
                    raise Flooded
                room = self._room()
        finally:
            whole = len(self._accepted) - first + acks == len(frames)
            self._log_accepted(first, message if whole else None, now, kept)
            self._rate.take(self.state.last_n - last_n)
        return None

    def _log_accepted(self, first: int, message: str | None, now: float, kept: int) -> None:
        """Log the requests accepted from index `first` on, whose params count for `kept` bytes.

        `message` is their text, if there is.
        """
        batch = self._accepted[first:]
        if not batch:
            return
        self._rules.memory.hold(self.state.subject, kept)
        self._counts.accept(batch)
        self._rules.load.unfinished.hold(self.state.subject, len(batch))
        if message is None or len(message) > PINNED_FACTOR * kept:
            # Params are views of the message, which would stay in memory with them.
            for request in batch:
                request.params = request.params.copy()
        if message is None:
            message = "\n".join(_request_text(request) for request in batch)
        state = self.state
        self._ends = None
        self._entries.append(Accepted(state.id, batch[0].n, state.subject, now, message))
        # Encoded here and now, while all this is at hand for the processor, too.
        frames = [wire.Accepted(request.id, request.n) for request in batch]
        self._replies.append(encode_message(frames))
        if not self._forced:
            self._commit()

    def _rare(self, frame: wire.ClientFrame | FrameError) -> bool:
        """Take a frame of the other kinds; tell whether further ones count."""
        match frame:
            case wire.Cancel():
                self._cancel_by_id(frame.id)
            case FrameError():
                self.refuse(ErrorCode.BAD_FRAME, str(frame), frame.id)
            case wire.Bye():
                self.close(cancel=frame.cancel)
                return False
            case _:
                self.refuse(ErrorCode.BAD_FRAME, "hello: this connection has said it")
        return True

    def refuse(
        self,
        code: ErrorCode,
        message: str,
        request_id: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        """Tell the client that a frame was not taken."""
        self._counts.refused[code] += 1
        if self.out is not None:
            frame = refusal(code, message, request_id, retry_after_seconds)
            self.out.put(frame, FRAME_BYTES + len(message))

    def _request(self, frame: wire.Request, now: float, room: int) -> int:
        """Accept a request unless it is known, or there is no room.

        Returns what its params count for, which is never 0; 0 when it was not accepted.
        """
        state = self.state
        request_id = frame.id
        what = digest(frame)
        if request_id in state.ids:
            self._repeat(state.live[state.ids[request_id]], what)
            return 0
        if request_id in state.recent or request_id in state.older:
            self._repeat_acknowledged(request_id, what)
            return 0
        try:
            if room <= 0:
                raise self._no_room(request_id, now)
            if len(frame.params) > self._rules.limits.max_params_bytes:
                raise self._too_big(frame)
            prepared = self._rules.check(frame.method, frame.params, state.scope)
        except Refused as refused:
            self.refuse(refused.code, str(refused), request_id, refused.retry_after_seconds)
            return 0
        request = state.accept(state.last_n + 1, frame, what, now)
        size = len(frame.params)
        if size <= PREPARED_BYTES_MAX:
            request.prepared = prepared
            size *= PREPARED_FACTOR
        request.kept_bytes = size
        self._unfinished += 1
        self._accepted.append(request)
        return size

    def _room(self) -> int:
        """Return how many requests may be accepted now."""
        rules = self._rules
        limits = rules.limits
        state = self.state
        unfinished = self._unfinished
        if (
            len(state.live) - unfinished >= limits.max_unacked
            or self._unacked_bytes >= limits.max_result_bytes
            or rules.memory.room(state.subject) <= 0
            or not rules.journal.available
            or self._refused_id is not None
        ):
            return 0
        return min(
            limits.window - unfinished - self._ghosts,
            self._n_max - state.last_n,
            rules.load.room(state.subject),
        )

    def _no_room(self, request_id: str, now: float) -> Refused:
        """Say why there is no room; others than `request_id` then wait for it."""
        refused = self._why_no_room()
        if self._refused_id is None and refused.code is not ErrorCode.WINDOW_EXCEEDED:
            self._refused_id = request_id
            self._refused_code = refused.code
            self._refused_until = now + TURN_SECONDS
        return refused

    def _why_no_room(self) -> Refused:
        limits = self._rules.limits
        if self._unfinished + self._ghosts >= limits.window:
            return Refused(
                ErrorCode.WINDOW_EXCEEDED,
                f"{limits.window} requests are unfinished: send again when one has ended",
            )
        unacked = len(self.state.live) - self._unfinished
        if unacked >= limits.max_unacked or self._unacked_bytes >= limits.max_result_bytes:
            return Refused(
                ErrorCode.WINDOW_EXCEEDED,
                f"{unacked} ended requests with {self._unacked_bytes} bytes of results "
                "are unacknowledged: send ack, then send again",
            )
        if self._refused_id is not None:
            rate_limited = self._refused_code is ErrorCode.RATE_LIMITED
            return Refused(
                self._refused_code,
                "a request before this one was refused: send that again first",
                self._rate.wait_seconds() if rate_limited else None,
            )
        return self._why_no_room_for_all()

    def _why_no_room_for_all(self) -> Refused:
        load = self._rules.load
        if self._rules.memory.room(self.state.subject) <= 0:
            return Refused(
                ErrorCode.OVERLOADED,
                "the server holds as many requests and unacknowledged results as it may, and of "
                "yours a full share: send ack, or send again later",
            )
        if load.memory_high:
            return Refused(
                ErrorCode.OVERLOADED, "the server has little memory left: send again later"
            )
        if not self._rules.journal.available:
            return Refused(
                ErrorCode.JOURNAL_UNAVAILABLE,
                "the journal cannot be written now: nothing was accepted, send again later",
            )
        if self.state.last_n >= self._n_max:
            return Refused(
                ErrorCode.RATE_LIMITED,
                f"more than {self._rules.limits.requests_per_second} requests in a second: send "
                "again after `retry_after` seconds",
                self._rate.wait_seconds(),
            )
        return Refused(
            ErrorCode.OVERLOADED,
            "the server has as many unfinished requests as it may, and of yours a full share: "
            "send again later",
        )

    def _look_for_refused(
        self, frames: Sequence[wire.ClientFrame | FrameError], now: float
    ) -> None:
        """Let requests in again when the refused one is among `frames`, or does not come."""
        waits = 0 <= self._refused_until - now <= TURN_SECONDS  # or the clock was set back
        if not waits or any(
            isinstance(frame, wire.Request | wire.Cancel) and frame.id == self._refused_id
            for frame in frames
        ):
            self._refused_id = None

    def _too_big(self, frame: wire.Request) -> Refused:
        return Refused(
            ErrorCode.MESSAGE_TOO_BIG,
            f"the params have {len(frame.params)} bytes, the server takes "
            f"{self._rules.limits.max_params_bytes}",
        )

    def _repeat(self, request: RequestState, what: int) -> None:
        if what != request.digest:
            self._conflict(request.id)
            return
        self._counts.repeated += 1
        if request.n <= self._committed_n and self.out is not None:
            phase = self._phase(request)
            self.out.put(wire.Accepted(request.id, request.n, duplicate=True, state=phase))
        # Otherwise its commit is on the way, and so is `accepted`.

    def _repeat_acknowledged(self, request_id: str, what: int) -> None:
        n, known = self.state.acknowledged(request_id) or (0, 0)
        if what != known:
            self._conflict(request_id)
            return
        self._counts.repeated += 1
        if self.out is not None:
            self.out.put(wire.Accepted(request_id, n, duplicate=True, state="acknowledged"))

    def _conflict(self, request_id: str) -> None:
        self.refuse(
            ErrorCode.ID_CONFLICT,
            "this id was used in this session for a request with other method or params: "
            "choose a new id",
            request_id,
        )

    def _cancel_by_id(self, request_id: str) -> None:
        n = self.state.ids.get(request_id)
        if n is not None:
            self._cancel(self.state.live[n])
        elif self.state.acknowledged(request_id) is None:
            self.refuse(
                ErrorCode.BAD_FRAME, "cancel: this session has no request of that id", request_id
            )

    def _cancel(self, request: RequestState, message: str = BY_CLIENT) -> None:
        if request.outcome is not None:
            return  # its end is on the way
        if request is self._running:
            self.work.stop(request, ErrorCode.CANCELLED, message)
        else:
            self._ghosts += 1
            error = encode_error(ErrorCode.CANCELLED, message, retryable=False)
            self.finish(request, ErrorCode.CANCELLED, error)

    def _ack(self, seq: int) -> bool:
        """Forget what the client has by now; tell whether it can have it."""
        events = self._events
        sent = self._cursor if self._lagging else self._next_seq
        if seq >= sent:
            self.refuse(
                ErrorCode.BAD_FRAME, f"ack: {seq} is beyond the last event sent, {sent - 1}"
            )
            return False
        popleft = events.popleft
        live = self.state.live
        ended: list[int] = []
        released = 0
        partial: RequestState | None = None
        results = 0
        for _ in range(seq - (self._next_seq - len(events)) + 1):
            request, index, size = popleft()
            if index != END:
                released += size
                partial = request
                results = index + 1
            elif request.n in live:
                released += size
                ended.append(request.n)
        self._hold(-released)
        if partial is not None and partial.n in live and partial.n not in ended:
            self._drop_tail(partial, results)
            self._acknowledge(Acked(self.state.id, ended, partial.n, results))
        elif ended:
            self._acknowledge(Acked(self.state.id, ended, 0, 0))
        return True

    def _acknowledge(self, entry: Acked) -> None:
        self.state.acknowledge(entry)
        self._note_start()
        last = self._entries[-1] if self._entries else None
        if isinstance(last, Acked) and last.n in (0, entry.n):
            # Acknowledgements ask for no commit: those of a long stream become one.
            self._entries[-1] = Acked(
                entry.session, last.ended + entry.ended, entry.n, entry.results
            )
        else:
            self._append(entry)

    def _drop_tail(self, request: RequestState, upto: int) -> None:
        """Forget results before index `upto` that are not in the log yet."""
        if request is self._running and upto > self._tail_first:
            acked = self._tail[: upto - self._tail_first]
            del self._tail[: len(acked)]
            self._tail_first = upto
            self._tail_bytes -= sum(map(len, acked))

    def _hold(self, size: int) -> None:
        """Count `size` bytes of unacknowledged results more."""
        self._unacked_bytes += size
        self._rules.memory.hold(self.state.subject, size)

    def _result_room(self) -> int:
        """Return how many bytes of results more may wait to be acknowledged."""
        own = self._rules.limits.max_result_bytes - self._unacked_bytes
        return min(own, self._rules.memory.room(self.state.subject))

    # What the worker says

    def start(self, request: RequestState) -> None:
        """Note that the handler runs next, once more than before.

        This gets into the log with the next commit, unless the request has ended by then.
        """
        self.state.start(request, request.attempt + 1)
        self._running = request
        request.started = self._rules.clock()
        self._count_start(request)
        self._noted = False
        self._tail_first = 0
        self._produced = 0
        if not self._forced:
            self._rules.journal.ride(self)
        if self._wants_started and self.out is not None:
            self.out.put(wire.Started(request.id, request.attempt))

    def _count_start(self, request: RequestState) -> None:
        counts = self._counts
        if request.attempt > 1:
            counts.replayed += 1
        else:
            counts.wait_seconds.observe(max(0.0, request.started - request.time))

    def skip(self) -> None:
        """Note that the worker came past a request that was cancelled while it waited."""
        self._ghosts -= 1

    def result(self, request: RequestState, data: bytes) -> None:
        """Send one item of the running request and keep it until it is acknowledged.

        Raises ResultTooLarge when the session would hold more than `max_result_bytes`, or the
        subject more than its share of what all sessions may.
        """
        if self.state.closed:
            self._produced += 1
            return
        size = len(data) + EVENT_BYTES
        if size > self._result_room():
            raise ResultTooLarge
        self._count_result(len(data))
        self._hold(size)
        self._tail.append(data)
        self._tail_bytes += len(data)
        index = self._produced
        self._produced = index + 1
        seq = self._next_seq
        self._next_seq = seq + 1
        self._events.append((request, index, size))
        out = self.out
        if out is not None and self._listens(out, seq):
            out.put(_result_frame(seq, request, index, data), FRAME_BYTES + len(data))
        if self._tail_bytes >= PIECE_BYTES:
            entry = Results(self.state.id, request.n, self._tail_first, self._tail)
            self._note_start()
            self._ends = None
            self._entries.append(entry)
            self.state.add_results(request, entry)
            self._take_tail()
            if not self._forced:
                self._rules.journal.bulk(self)

    def answer(self, answers: Sequence[tuple[RequestState, bytes]]) -> None:
        """End requests that ran at once, each in its first attempt and with one result.

        No `start` comes before that. What does not fit into `max_result_bytes` ends with
        `result_too_large`.
        """
        state = self.state
        closed = state.closed
        now = self._rules.clock()
        room = self._result_room()
        first_seq = seq = self._next_seq
        ends: list[End] = []
        frames: list[wire.Result] = []
        sizes: list[int] = []
        errors = kept = 0
        if self._wants_started and self.out is not None:
            for request, _ in answers:
                self.out.put(wire.Started(request.id, 1))
        for request, data in answers:
            kept += request.kept_bytes
            size = len(data) + EVENT_BYTES
            if closed:
                end = End(request.n, 1, 1, DONE, now, now, 0, [], b"")
            elif size > room:
                end = End(request.n, 1, 0, ErrorCode.RESULT_TOO_LARGE, now, now, 0, [], TOO_LARGE)
                errors += len(TOO_LARGE)
                request.kept_params = request.params
            else:
                end = End(request.n, 1, 1, DONE, now, now, 0, [data], b"")
                room -= size
                self._events.append((request, 0, size))
                frames.append(wire.Result(request.id, 1, 0, Raw(data), seq))
                sizes.append(size)
                seq += 1
            ends.append(end)
            state.finish(request, end)
        sent = sum(sizes)
        size = sent + errors
        self._unacked_bytes += size
        self._rules.memory.hold(state.subject, size - kept)
        counts = self._counts
        counts.results += len(sizes)
        counts.result_bytes += sent - EVENT_BYTES * len(sizes)
        counts.wait_seconds.observe(max(0.0, now - answers[0][0].time), len(answers))
        self._next_seq = seq
        out = self.out
        if frames and out is not None and self._listens(out, first_seq):
            out.put_all(frames, sizes)
        requests = [request for request, _ in answers]
        if errors:
            for end, request in zip(ends, requests, strict=True):
                counts.end(request.method, end.outcome)
        else:
            counts.end_at_once(requests)
        self._ended_with(ends, requests)

    def live_result(self, request: RequestState, data: bytes) -> None:
        """Send one item of a method declared live: it has no number and is not kept."""
        if self.out is not None:
            frame = _result_frame(0, request, self._produced, data)
            self.out.put(frame, FRAME_BYTES + len(data))
        self._produced += 1
        self._count_result(len(data))

    def _count_result(self, size: int) -> None:
        self._counts.results += 1
        self._counts.result_bytes += size

    def finish(self, request: RequestState, outcome: str, error: bytes = b"") -> None:
        """End a request that runs, or that must not run: outcome DONE, or a code with its text.

        An error text that does not fit into `max_result_bytes` becomes `result_too_large`.
        """
        if outcome != DONE:
            request.kept_params = request.params
        if error and not self.state.closed:
            if len(error) > max(self._result_room(), len(TOO_LARGE)):
                outcome, error = ErrorCode.RESULT_TOO_LARGE, TOO_LARGE
            self._hold(len(error))
        self._rules.memory.hold(self.state.subject, -request.kept_bytes)
        first, items, results, started = 0, list[bytes](), 0, 0.0
        if request is self._running:
            if request.attempt > 1:
                self._note_start()  # it also says that older results are void
            first, items = self._take_tail()
            results, started = self._produced, request.started
            self._running = None
            self._noted = True
        now = self._rules.clock()
        end = End(request.n, request.attempt, results, outcome, started, now, first, items, error)
        self.state.finish(request, end)
        self._counts.end(request.method, outcome)
        self._ended_with([end], [request])

    def _ended_with(self, ends: Sequence[End], requests: Sequence[RequestState]) -> None:
        """Log how `requests` ended, which the state knows already."""
        if self._ends is None:
            self._ends = []
            self._entries.append(Finished(self.state.id, self._ends))
        self._ends += ends
        self._ended += requests
        self._ending.update([request.n for request in requests])
        self._unfinished -= len(requests)
        self._rules.load.unfinished.hold(self.state.subject, -len(requests))
        if not self._forced:
            self._commit()

    def _take_tail(self) -> tuple[int, list[bytes]]:
        first, items = self._tail_first, self._tail
        self._tail_first = first + len(items)
        self._tail = []
        self._tail_bytes = 0
        return first, items

    def _listens(self, out: Out, seq: int) -> bool:
        """Tell whether event `seq` goes out now; otherwise it waits until there is room."""
        if self._lagging:
            return False
        if out.full:
            self._lagging = True
            self._cursor = seq
            return False
        return True

    # What the journal says

    def cut(self) -> Sequence[Entry]:
        """Return the entries made since the last cut, for the commit that is made now."""
        self._note_start()
        entries = self._entries
        self._entries = []
        self._ends = None
        self._in_flight = (self._accepted, self._replies, self._ended)
        self._accepted = []
        self._replies = []
        self._ended = []
        self._forced = False
        return entries

    def committed(self) -> None:
        """Go on with what the last cut has made durable."""
        accepted, replies, ended = self._in_flight
        self._in_flight = _NOTHING
        if accepted:
            self._committed_n = accepted[-1].n
            # First the worker, then the frames: so they are in one message with quick results.
            # When the session is over already all of it was cancelled, and the worker is gone.
            if not self.state.is_over():
                self.work.put(accepted)
            if self.out is not None:
                for frames in replies:
                    self.out.put(Raw(frames), len(frames))
        self._rules.note(self, ended)
        if ended:
            self._announce(ended)

    def _announce(self, ended: Sequence[RequestState]) -> None:
        """Number and send the events that end requests."""
        self._ending.difference_update([request.n for request in ended])
        if self.state.closed:
            return
        seq = self._next_seq
        self._next_seq = seq + len(ended)
        self._events.extend([(request, END, len(request.error)) for request in ended])
        out = self.out
        if out is not None and self._listens(out, seq):
            frames = [_end_frame(seq + k, request) for k, request in enumerate(ended)]
            out.put_all(frames, [FRAME_BYTES + len(request.error) for request in ended])

    def _append(self, entry: Entry) -> None:
        """Put `entry` into the log with whatever is committed next."""
        self._note_start()
        self._ends = None
        self._entries.append(entry)
        if not self._forced:
            self._rules.journal.ride(self)

    def _note_start(self) -> None:
        """Put the start of the running request into the log, unless it is there."""
        if self._noted or self._running is None:
            return
        self._noted = True
        self._ends = None
        request = self._running
        self._entries.append(Started(self.state.id, request.n, request.attempt, request.started))

    def _commit(self) -> None:
        """Ask for a commit of what was put into the log."""
        self._forced = True
        self._rules.journal.commit(self)


class _ErrorText(Struct):
    """What `encode_error` wrote."""

    code: str
    message: str
    retryable: bool
    details: Raw | UnsetType = UNSET


_error_decoder: Final = Decoder(_ErrorText)
TOO_LARGE: Final = encode_error(
    ErrorCode.RESULT_TOO_LARGE,
    "the unacknowledged results would exceed max_result_bytes, or your share of the server's "
    "memory: acknowledge results sooner, or yield less",
    retryable=False,
)


def refusal(
    code: ErrorCode,
    message: str,
    request_id: str | None = None,
    retry_after_seconds: float | None = None,
) -> wire.Error:
    """Return an `error` frame that ends nothing: what it answers was not taken."""
    return wire.Error(
        code=code,
        message=message,
        retryable=code in RETRYABLE,
        id=request_id,
        retry_after=None if retry_after_seconds is None else round(retry_after_seconds, 3),
    )


def _result_frame(seq: int, request: RequestState, index: int, data: bytes) -> wire.Result:
    return wire.Result(request.id, request.attempt, index, Raw(data), seq)


def _end_frame(seq: int, request: RequestState) -> wire.Done | wire.Error:
    if request.outcome == DONE:
        return wire.Done(request.id, seq, request.attempt, request.total)
    error = _error_decoder.decode(request.error)
    return wire.Error(
        code=error.code,
        message=error.message,
        retryable=error.retryable,
        id=request.id,
        seq=seq,
        attempt=request.attempt,
        details=error.details,
    )


def _request_text(request: RequestState) -> str:
    """Return the frame that `request` came as."""
    frame = wire.Request(
        request.id,
        request.method,
        request.params,
        request.timeout,
        "cancel" if request.cancel_on_disconnect else "continue",
    )
    return encode(frame).decode()
