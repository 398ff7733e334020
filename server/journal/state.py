"""The fold: `apply(state, entry)` is the only thing that changes journaled state.

The running server applies every entry the moment it puts it into the log, recovery and tests
apply what they read from a log; folding the log therefore always gives the state the server
holds. Nothing here does I/O or looks at a clock.
"""

import sys
import zlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

from msgspec import Raw, Struct

from protocol.codec import decode_client_message
from protocol.frames import Request
from server.journal.entries import (
    Accepted,
    Acked,
    Authorized,
    Claimed,
    Closed,
    End,
    Entry,
    Finished,
    Opened,
    RequestSnapshot,
    Results,
    Snapshot,
    Started,
    Stopped,
)
from server.journal.log import Damaged

RECENT_IDS_MIN: Final = 1000
"""How many acknowledged ids a session remembers at least (G4); at most twice as many."""


_NO_PARAMS: Final = Raw(b"")


class RequestState(Struct, eq=False, gc=False):
    """One live request: unfinished, or ended and not acknowledged.

    `results` holds the items from index `dropped` on and is never changed in place, so that an
    entry may share it; `outcome` is None until it ended; `params` is emptied then, since only
    `digest` is needed to recognise the request again. Not journaled: `prepared`, what the check
    made of the params, for the worker of this process; `kept_bytes`, what the params are
    counted for in its memory; and `kept_params`, the params of one that has just ended with an
    error, until the request log has taken them. `started` and `ended` are Unix times, 0 for what
    did not happen in this process.
    """

    n: int
    id: str
    method: str
    params: Raw
    digest: int
    scope: str
    time: float
    timeout: float | None
    cancel_on_disconnect: bool
    prepared: Any = None
    attempt: int = 0
    dropped: int = 0
    results: Sequence[bytes] = ()
    total: int = 0
    outcome: str | None = None
    error: bytes = b""
    started: float = 0.0
    ended: float = 0.0
    kept_bytes: int = 0
    kept_params: Raw | None = None

    def restart(self) -> None:
        """Forget the partial results of an attempt that did not end."""
        self.dropped = 0
        self.results = ()


def digest(frame: Request) -> int:
    """Return what tells requests of the same id apart (G4)."""
    return zlib.crc32(
        frame.params,  # pyright: ignore[reportArgumentType] - a Raw is a buffer
        _method_digest(frame.method),
    )


@lru_cache(maxsize=256)
def _method_digest(method: str) -> int:
    return zlib.crc32(method.encode())


class SessionState:
    """What the log says of one session. `live` is in `n` order; `recent` maps id to n and digest.

    Acknowledged ids are kept in two generations, so that forgetting the oldest costs nothing.
    """

    __slots__ = ("closed", "id", "ids", "last_n", "live", "older", "recent", "scope", "subject")

    def __init__(self, id: str, subject: str, scope: str) -> None:  # noqa: A002 - the wire's name
        self.id = id
        self.subject = subject
        self.scope = scope
        self.last_n = 0
        self.closed = False
        self.live: dict[int, RequestState] = {}
        self.ids: dict[str, int] = {}
        self.recent: dict[str, int] = {}
        self.older: dict[str, int] = {}

    def acknowledged(self, request_id: str) -> tuple[int, int] | None:
        """Return (n, digest) of a remembered acknowledged request, or None."""
        packed = self.recent.get(request_id)
        if packed is None:
            packed = self.older.get(request_id)
        return None if packed is None else (packed >> 32, packed & 0xFFFFFFFF)

    def is_over(self) -> bool:
        """Tell whether nothing of this session is left to do or to keep."""
        return self.closed and not self.live

    def _forget(self, numbers: Iterable[int]) -> None:
        live = self.live
        ids = self.ids
        recent = self.recent
        for n in numbers:
            request = live.pop(n)
            del ids[request.id]
            recent[request.id] = n << 32 | request.digest
        if len(recent) >= RECENT_IDS_MIN:
            self.older = recent
            self.recent = {}

    def accept(self, n: int, frame: Request, digest: int, time: float) -> RequestState:
        """Apply one request of an Accepted entry and return it."""
        request = RequestState(
            n,
            frame.id,
            sys.intern(frame.method),
            frame.params,
            digest,
            self.scope,
            time,
            frame.timeout,
            frame.on_disconnect == "cancel",
        )
        self.last_n = n
        self.live[n] = request
        self.ids[frame.id] = n
        return request

    def start(self, request: RequestState, attempt: int) -> None:
        """Apply a Started entry."""
        request.attempt = attempt
        request.restart()

    def add_results(self, request: RequestState, entry: Results) -> None:
        """Apply `entry`."""
        request.results = [*request.results, *entry.items]

    def finish(self, request: RequestState, end: End) -> None:
        """Apply `end`; a closed session keeps no results, so its request is forgotten."""
        request.attempt = end.attempt
        request.results = [*request.results, *end.items] if request.results else end.items
        request.total = end.results
        request.outcome = end.outcome
        request.error = end.error
        request.started = end.started
        request.ended = end.time
        request.params = _NO_PARAMS
        request.prepared = None
        if self.closed:
            self._forget([request.n])

    def acknowledge(self, entry: Acked) -> None:
        """Apply `entry`."""
        self._forget(entry.ended)
        partial = self.live.get(entry.n)
        if partial is not None and entry.results > partial.dropped:
            partial.results = partial.results[entry.results - partial.dropped :]
            partial.dropped = entry.results

    def close(self) -> None:
        """Apply a Closed entry: drop what ended, let the rest run to its end."""
        self.closed = True
        self._forget([r.n for r in self.live.values() if r.outcome is not None])

    def snapshot(self) -> Snapshot:
        """Return an entry that says all of this session."""
        return Snapshot(
            self.id,
            self.subject,
            self.scope,
            self.last_n,
            self.closed,
            [
                RequestSnapshot(
                    r.n,
                    r.id,
                    r.method,
                    bytes(r.params),
                    r.digest,
                    r.scope,
                    r.time,
                    r.timeout,
                    r.cancel_on_disconnect,
                    r.attempt,
                    r.dropped,
                    list(r.results),
                    r.total,
                    r.outcome,
                    r.error,
                )
                for r in self.live.values()
            ],
            # Copies: the entry is encoded later, the session goes on.
            dict(self.recent),
            dict(self.older),
        )

    @classmethod
    def from_snapshot(cls, entry: Snapshot) -> "SessionState":
        """Return the session that `entry` describes."""
        session = cls(entry.session, entry.subject, entry.scope)
        session.last_n = entry.last_n
        session.closed = entry.closed
        for s in entry.requests:
            request = RequestState(
                s.n,
                s.id,
                s.method,
                Raw(s.params),
                s.digest,
                s.scope,
                s.time,
                s.timeout,
                s.cancel_on_disconnect,
            )
            request.attempt = s.attempt
            request.dropped = s.dropped
            request.results = s.results
            request.total = s.total
            request.outcome = s.outcome
            request.error = s.error
            session.live[s.n] = request
            session.ids[s.id] = s.n
        session.recent = entry.recent
        session.older = entry.older
        return session


class State:
    """Everything one log, or several logs one after the other, say: the sessions by id.

    `claimed` are the owners whose logs were taken over; `stopped` tells whether an owner said that
    it stops in good order: it starts nothing more then, though its clients may go on for a moment.
    """

    def __init__(self) -> None:
        self.sessions: dict[str, SessionState] = {}
        self.claimed: set[str] = set()
        self.stopped = False


def apply(state: State, entry: Entry) -> None:
    """Change `state` by what `entry` says. Raises Damaged when that cannot be.

    Entries of a session that is not known are passed over: a log whose start was trimmed says
    them before it comes to the session's snapshot.
    """
    match entry:
        case Snapshot():
            state.sessions[entry.session] = SessionState.from_snapshot(entry)
        case Opened():
            state.sessions[entry.session] = SessionState(entry.session, entry.subject, entry.scope)
        case Claimed():
            state.claimed.add(entry.owner)
        case Stopped():
            state.stopped = True
        case _:
            if isinstance(entry, Started):
                state.stopped = False
            session = state.sessions.get(entry.session)
            if session is not None:
                try:
                    _apply_to_session(session, entry)
                except KeyError as error:
                    raise Damaged(f"session {session.id} has no request {error}") from error
                if session.is_over():
                    del state.sessions[session.id]


def _apply_to_session(
    session: SessionState,
    entry: Accepted | Started | Results | Finished | Acked | Authorized | Closed,
) -> None:
    match entry:
        case Accepted():
            _accept(session, entry)
        case Started():
            session.start(session.live[entry.n], entry.attempt)
        case Results():
            session.add_results(session.live[entry.n], entry)
        case Finished():
            for end in entry.ends:
                session.finish(session.live[end.n], end)
        case Acked():
            session.acknowledge(entry)
        case Authorized():
            session.scope = entry.scope
        case Closed():
            session.close()


def _accept(session: SessionState, entry: Accepted) -> None:
    n = entry.n
    if n != session.last_n + 1:
        raise Damaged(f"session {session.id} has request {n} behind {session.last_n}")
    for frame in decode_client_message(entry.frames):
        if isinstance(frame, Request):
            session.accept(n, frame, digest(frame), entry.time)
            n += 1


def fold(state: State, entries: Iterable[Entry]) -> None:
    """Apply `entries` in order. Raises Damaged."""
    for entry in entries:
        apply(state, entry)
