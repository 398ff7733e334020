"""All sessions of this process: opening, resuming, expiring them. One live connection each."""

import asyncio
import math
import secrets
from collections import Counter
from collections.abc import Iterator
from typing import Final

import structlog

from server.counts import Counts
from server.journal.state import RequestState, SessionState
from server.session import Rules, Session
from server.worker import Runtime, Worker

END_SECONDS: Final = 2.0
"""How long a stopping server waits for handlers that were cancelled."""

_log = structlog.get_logger(__name__)


class TooManySessions(Exception):
    """The process holds `max_sessions` sessions."""


class TooManyOfSubject(TooManySessions):
    """The process holds `max_sessions_per_subject` sessions of one subject."""


def new_session_id() -> str:
    """Return an id nobody can guess; no command line takes it for an option."""
    while (session_id := secrets.token_urlsafe(18)).startswith("-"):
        pass
    return session_id


class Seat:
    """A session with its worker; `idle_since` is the loop's time when its last connection went."""

    __slots__ = ("idle_since", "session", "worker")

    def __init__(self, session: Session, worker: Worker, now: float) -> None:
        self.session = session
        self.worker = worker
        self.idle_since = now
        worker.session = session


class Sessions:
    """The sessions by id. `max_sessions` bounds those that clients open, and
    `max_sessions_per_subject` those of one subject: so nobody can take them all.

    As it was at the last sweep: `oldest_unfinished_at` is the Unix time at which the oldest
    unfinished request came, infinity without; `unacked_bytes` is what all results that wait for an
    acknowledgement are counted for.

    `recovered` is set once those of older processes are here.
    """

    def __init__(
        self, rules: Rules, runtime: Runtime, max_sessions: int, max_sessions_per_subject: int
    ) -> None:
        self._rules = rules
        self._runtime = runtime
        self._max_sessions = max_sessions
        self._max_sessions_per_subject = max_sessions_per_subject
        self.recovered = asyncio.Event()
        self.oldest_unfinished_at = math.inf
        self.unacked_bytes = 0
        self._seats: dict[str, Seat] = {}
        self._counts: Counter[str] = Counter()  # by subject

    def __iter__(self) -> Iterator[Seat]:
        return iter(list(self._seats.values()))

    def __len__(self) -> int:
        return len(self._seats)

    @property
    def counts(self) -> Counts:
        """What happened to all of them and their requests."""
        return self._rules.counts

    def resume(self, session_id: str, subject: str) -> Seat | None:
        """Return the session if it is there and `subject`'s own; a foreign one is not revealed."""
        seat = self._seats.get(session_id)
        if seat is None or seat.session.state.closed:
            return None
        return seat if seat.session.state.subject == subject else None

    def open(self, subject: str, scope: str) -> Seat:
        """Begin a new session under an id nobody can guess.

        Raises TooManySessions, and TooManyOfSubject.
        """
        if len(self._seats) >= self._max_sessions:
            raise TooManySessions
        if self._counts[subject] >= self._max_sessions_per_subject:
            raise TooManyOfSubject
        session_id = new_session_id()
        worker = Worker(self._runtime, self._rules.limits.window)
        session = Session.open(session_id, subject, scope, self._rules, worker)
        return self._add(session, worker)

    def get(self, session_id: str) -> Seat | None:
        """Return the session, whosever it is, if it is there."""
        return self._seats.get(session_id)

    def adopt(self, session_id: str, subject: str, scope: str) -> Seat:
        """Begin a session that is nobody's to resume, under an id of the caller's; no limit."""
        worker = Worker(self._runtime, self._rules.limits.window)
        session = Session.open(session_id, subject, scope, self._rules, worker)
        return self._add(session, worker)

    def recover(self, state: SessionState) -> Seat:
        """Take over a session of an earlier owner; its unfinished requests are queued again."""
        worker = Worker(self._runtime, max(self._rules.limits.window, len(state.live)))
        seat = self._add(Session(state, self._rules, worker), worker)
        seat.session.recover()
        return seat

    def drop_if_over(self, seat: Seat) -> None:
        """Forget a closed session whose last request has ended; does nothing the second time."""
        state = seat.session.state
        if (
            state.is_over()
            and seat.worker.running is None
            and self._seats.pop(state.id, None) is not None
        ):
            self._counts[state.subject] -= 1
            if not self._counts[state.subject]:
                del self._counts[state.subject]
            seat.worker.end()  # it would wait for further requests for ever
            del seat.worker.session  # or they would refer to each other until garbage is collected

    def sweep(self, session_ttl_seconds: float, results_before: float) -> None:
        """End sessions nobody resumed, forget results from before that Unix time, and drop what is
        over.
        """
        now = self._runtime.loop.time()
        oldest, unacked_bytes = math.inf, 0
        for seat in self:
            session = seat.session
            away = session.out is None and not session.state.closed
            if away and now - seat.idle_since >= session_ttl_seconds:
                _log.info("session_expired", session=session.state.id)
                session.close(cancel=False, why="expired")
            if not session.state.closed:
                session.expire_results(results_before)
            oldest = min(oldest, session.oldest_unfinished_at())
            unacked_bytes += session.unacked_bytes
            self.drop_if_over(seat)
        self.oldest_unfinished_at = oldest
        self.unacked_bytes = unacked_bytes

    async def drain(self, timeout_seconds: float) -> None:
        """Begin no further request; let those that run end within that time."""
        self._runtime.draining = True
        tasks = [task for seat in self if (task := seat.worker.drain()) is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_seconds)

    async def end(self) -> None:
        """Stop all workers; requests that run stay unfinished in the journal."""
        self._runtime.draining = True
        ending = [task for seat in self if (task := seat.worker.end()) is not None]
        if ending:
            await asyncio.wait(ending, timeout=END_SECONDS)

    def stuck(self) -> list[RequestState]:
        """Return the requests whose handlers go on though the server stops."""
        return [r for seat in self if (r := seat.worker.running) is not None and seat.worker.alive]

    def checkpoint(self) -> Iterator[int]:
        """Put each session that is there now into the log, one per step; give the bytes of each."""
        for session_id in list(self._seats):
            seat = self._seats.get(session_id)
            if seat is not None:
                yield seat.session.checkpoint()

    def _add(self, session: Session, worker: Worker) -> Seat:
        seat = Seat(session, worker, self._runtime.loop.time())
        self._seats[session.state.id] = seat
        self._counts[session.state.subject] += 1
        return seat
