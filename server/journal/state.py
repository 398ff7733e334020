"""The fold: `apply(state, entry)` is the only thing that changes journaled state.

The running server applies every entry the moment it puts it into the log, recovery and tests
apply what they read from a log; folding the log therefore always gives the state the server
holds. Nothing here does I/O or looks at a clock.
"""

from collections.abc import Iterable
from typing import Final

from server.journal.entries import (
    Accepted,
    Acked,
    Authorized,
    Claimed,
    Closed,
    Entry,
    Finished,
    Opened,
    RequestSnapshot,
    Results,
    Snapshot,
    Started,
    Stopped,
)

RECENT_IDS_MIN: Final = 1000
"""How many acknowledged ids a session remembers at least (G4); at most twice as many."""


class RequestState:
    """One live request: unfinished, or ended and not acknowledged.

    `results` holds the items from index `dropped` on; `outcome` is None until it ended; `params`
    is emptied then, since only `digest` is needed to recognise the request again.
    """

    __slots__ = (
        "attempt",
        "cancel_on_disconnect",
        "digest",
        "dropped",
        "error",
        "id",
        "method",
        "n",
        "outcome",
        "params",
        "results",
        "scope",
        "subject",
        "time",
        "timeout",
        "total",
    )

    def __init__(
        self,
        n: int,
        id: str,  # noqa: A002 - the wire's name
        method: str,
        params: bytes,
        digest: int,
        subject: str,
        scope: str,
        time: float,
        timeout: float | None,
        cancel_on_disconnect: bool,
    ) -> None:
        self.n = n
        self.id = id
        self.method = method
        self.params = params
        self.digest = digest
        self.subject = subject
        self.scope = scope
        self.time = time
        self.timeout = timeout
        self.cancel_on_disconnect = cancel_on_disconnect
        self.attempt = 0
        self.dropped = 0
        self.results: list[bytes] = []
        self.total = 0
        self.outcome: str | None = None
        self.error = b""

    def restart(self) -> None:
        """Forget the partial results of an attempt that did not end."""
        self.dropped = 0
        self.results = []


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

    def _forget(self, request: RequestState) -> None:
        del self.live[request.n]
        del self.ids[request.id]
        recent = self.recent
        recent[request.id] = request.n << 32 | request.digest
        if len(recent) >= RECENT_IDS_MIN:
            self.older = recent
            self.recent = {}

    def accept(self, entry: Accepted) -> RequestState:
        """Apply `entry` and return the new request."""
        request = RequestState(
            entry.n,
            entry.id,
            entry.method,
            entry.params,
            entry.digest,
            entry.subject,
            self.scope,
            entry.time,
            entry.timeout,
            entry.cancel_on_disconnect,
        )
        self.last_n = entry.n
        self.live[entry.n] = request
        self.ids[entry.id] = entry.n
        return request

    def start(self, request: RequestState, entry: Started) -> None:
        """Apply `entry`."""
        request.attempt = entry.attempt
        request.restart()

    def add_results(self, request: RequestState, entry: Results) -> None:
        """Apply `entry`."""
        request.results.extend(entry.items)

    def finish(self, request: RequestState, entry: Finished) -> None:
        """Apply `entry`; a closed session keeps no results, so its request is forgotten."""
        request.attempt = entry.attempt
        request.results.extend(entry.items)
        request.total = entry.results
        request.outcome = entry.outcome
        request.error = entry.error
        request.params = b""
        if self.closed:
            self._forget(request)

    def acknowledge(self, entry: Acked) -> None:
        """Apply `entry`."""
        live = self.live
        for n in entry.ended:
            self._forget(live[n])
        partial = live.get(entry.n)
        if partial is not None and entry.results > partial.dropped:
            del partial.results[: entry.results - partial.dropped]
            partial.dropped = entry.results

    def close(self) -> None:
        """Apply a Closed entry: drop what ended, let the rest run to its end."""
        self.closed = True
        for request in [r for r in self.live.values() if r.outcome is not None]:
            self._forget(request)

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
                    r.params,
                    r.digest,
                    r.subject,
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
                s.params,
                s.digest,
                s.subject,
                s.scope,
                s.time,
                s.timeout,
                s.cancel_on_disconnect,
            )
            request.attempt = s.attempt
            request.dropped = s.dropped
            request.results = list(s.results)
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

    `claimed` are the owners whose logs were taken over; `stopped` tells whether the last log
    folded ended in good order.
    """

    def __init__(self) -> None:
        self.sessions: dict[str, SessionState] = {}
        self.claimed: set[str] = set()
        self.stopped = False


def apply(state: State, entry: Entry) -> None:
    """Change `state` by what `entry` says.

    Entries of a session that is not known are passed over: a log whose start was trimmed says
    them before it comes to the session's snapshot.
    """
    state.stopped = False
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
            session = state.sessions.get(entry.session)
            if session is not None:
                _apply_to_session(session, entry)
                if session.is_over():
                    del state.sessions[session.id]


def _apply_to_session(
    session: SessionState,
    entry: Accepted | Started | Results | Finished | Acked | Authorized | Closed,
) -> None:
    match entry:
        case Accepted():
            session.accept(entry)
        case Started():
            session.start(session.live[entry.n], entry)
        case Results():
            session.add_results(session.live[entry.n], entry)
        case Finished():
            session.finish(session.live[entry.n], entry)
        case Acked():
            session.acknowledge(entry)
        case Authorized():
            session.scope = entry.scope
        case Closed():
            session.close()


def fold(state: State, entries: Iterable[Entry]) -> None:
    """Apply `entries` in order."""
    for entry in entries:
        apply(state, entry)
