"""The server with a bug: `python -m tests.crash.mutant NAME` patches one in, then serves.

Each mutation is one a programmer might make, against one of the guarantees. The crash test must see
every one of them, or it would not see the real thing either.
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec.structs import replace

from protocol import frames as wire
from server import recovery
from server.cli import main
from server.journal.checkpoint import Checkpointer
from server.journal.entries import encode_commit
from server.journal.mongodb_log import MongodbLog
from server.journal.sqlite_log import SqliteLog
from server.journal.state import RequestState, SessionState
from server.session import Session
from server.sessions import Sessions
from server.worker import Worker

COMMIT_SECONDS: Final = 0.03
"""Every commit takes so long at least: a kill hits one under way more often than not."""
LOST_COMMIT: Final = 5
"""Every so many commits one is written without what is in it."""

MUTATIONS: Final[dict[str, Callable[[], None]]] = {}


def mutation(patch: Callable[[], None]) -> Callable[[], None]:
    """Register a mutation under the name of its function."""
    MUTATIONS[patch.__name__] = patch
    return patch


@mutation
def none() -> None:
    """No bug at all."""


# G1


@mutation
def accepted_before_commit() -> None:
    original = Session._log_accepted

    def log_accepted(self: Session, first: int, *args: Any) -> None:
        for request in self._accepted[first:]:
            if self.out is not None:
                self.out.put(wire.Accepted(request.id, request.n))
        original(self, first, *args)
        self._replies.clear()

    Session._log_accepted = log_accepted


@mutation
def runs_before_commit() -> None:
    original = Session._log_accepted

    def log_accepted(self: Session, first: int, *args: Any) -> None:
        original(self, first, *args)
        self.work.put(self._accepted[first:])

    def committed(self: Session) -> None:
        work, self.work = self.work, _Nobody()
        told(self)
        self.work = work

    told = Session.committed
    Session._log_accepted = log_accepted
    Session.committed = committed


class _Nobody:
    """Whom requests are put to that run already."""

    def put(self, batch: Sequence[RequestState]) -> None:
        pass


@mutation
def commit_is_written_without_its_entries() -> None:
    original = SqliteLog._append

    def append(self: SqliteLog, connection: Any, owner: str, seq: int, data: bytes) -> None:
        # A gap would be refused by recovery: what is lost here is what no checksum can tell.
        lost = seq % LOST_COMMIT == 0
        original(self, connection, owner, seq, encode_commit([]) if lost else data)

    SqliteLog._append = append


@mutation
def waiting_request_is_dropped_by_recovery() -> None:
    original = recovery.prepare

    def prepare(session: SessionState, *args: Any, **kwargs: Any) -> None:
        for request in list(session.live.values()):
            if request.outcome is None and request.attempt == 0:
                del session.live[request.n]
                del session.ids[request.id]
        original(session, *args, **kwargs)

    recovery.prepare = prepare


@mutation
def checkpoint_forgets_a_session() -> None:
    original = Sessions.checkpoint

    def checkpoint(self: Sessions) -> Any:
        forgotten = next(iter(self._seats), None)
        seat = self._seats.pop(forgotten, None)
        try:
            yield from original(self)
        finally:
            if seat is not None:
                self._seats = {forgotten: seat, **self._seats}

    Sessions.checkpoint = checkpoint


@mutation
def checkpoint_trims_too_much() -> None:
    async def checkpoint(self: Checkpointer, snapshots: Any) -> None:
        for _ in snapshots:
            pass
        await self._committer.durable()
        self._bytes_at_last = self._committer.bytes_written
        projected = await self._projector.run()
        await self._store.log.trim(self._committer.owner, projected)

    Checkpointer.checkpoint = checkpoint


# G2


@mutation
def done_before_commit() -> None:
    original = Session._ended_with

    def ended_with(self: Session, ends: Any, requests: Sequence[RequestState]) -> None:
        original(self, ends, requests)
        early = [request for request in requests if request.n <= self._committed_n]
        self._ended = [request for request in self._ended if request not in early]
        self._announce(early)

    Session._ended_with = ended_with


@mutation
def finished_request_runs_again() -> None:
    finish = SessionState.finish
    original = recovery.prepare

    def finish_and_keep_params(self: SessionState, request: RequestState, end: Any) -> None:
        params = request.params
        finish(self, request, end)
        request.params = params

    def prepare(session: SessionState, *args: Any, **kwargs: Any) -> None:
        for request in session.live.values():
            if request.outcome == "done":
                request.outcome = None
                request.total = 0
        original(session, *args, **kwargs)

    SessionState.finish = finish_and_keep_params
    recovery.prepare = prepare


@mutation
def result_is_lost_by_recovery() -> None:
    original = recovery.prepare

    def prepare(session: SessionState, *args: Any, **kwargs: Any) -> None:
        original(session, *args, **kwargs)
        for request in session.live.values():
            request.results = request.results[:-1]

    recovery.prepare = prepare


# G3


@mutation
def two_run_at_a_time() -> None:
    original = Worker.put

    def put(self: Worker, batch: Sequence[RequestState]) -> None:
        if len(batch) > 1:
            other = Worker(self._runtime, len(batch))
            other.session = self.session
            original(other, batch[1:])
        original(self, batch[:1])

    Worker.put = put


@mutation
def recovery_in_wrong_order() -> None:
    original = Session.recover

    def recover(self: Session) -> None:
        work = self.work
        self.work = _Reversed(work)
        original(self)
        self.work = work

    Session.recover = recover


class _Reversed:
    def __init__(self, work: Any) -> None:
        self._work = work

    def put(self, batch: Sequence[RequestState]) -> None:
        self._work.put(batch[::-1])


@mutation
def numbers_begin_anew() -> None:
    original = recovery.prepare

    def prepare(session: SessionState, *args: Any, **kwargs: Any) -> None:
        original(session, *args, **kwargs)
        session.last_n = max(session.live, default=0)

    recovery.prepare = prepare


@mutation
def attempt_is_not_counted() -> None:
    original = SessionState.start

    def start(self: SessionState, request: RequestState, attempt: int) -> None:
        original(self, request, min(attempt, 1))

    SessionState.start = start


# G4


@mutation
def repeated_request_runs_again() -> None:
    original = Session._request

    def request(self: Session, frame: wire.Request, now: float, room: int) -> int:
        self.state.recent.pop(frame.id, None)
        self.state.older.pop(frame.id, None)
        return original(self, frame, now, room)

    Session._request = request


@mutation
def conflict_is_taken_for_a_repetition() -> None:
    original = Session._repeat
    acknowledged = Session._repeat_acknowledged

    def repeat(self: Session, request: RequestState, _what: int) -> None:
        original(self, request, request.digest)

    def repeat_acknowledged(self: Session, request_id: str, _what: int) -> None:
        acknowledged(self, request_id, (self.state.acknowledged(request_id) or (0, 0))[1])

    Session._repeat = repeat
    Session._repeat_acknowledged = repeat_acknowledged


@mutation
def started_method_runs_again() -> None:
    """`if_not_started`, and its start was not written down."""
    original = Session._note_start

    def note_start(self: Session) -> None:
        if self._running is None or self._running.method != "unstarted":
            original(self)

    Session._note_start = note_start


@mutation
def method_that_must_not_runs_again() -> None:
    """`never`, and a crash is taken for an orderly stop."""
    original = recovery.prepare

    def prepare(session: SessionState, handlers: Any, *, orderly: bool) -> None:
        before = {request.n: request.attempt for request in session.live.values()}
        original(session, handlers, orderly=orderly)
        for request in session.live.values():
            if request.method == "once" and request.outcome is None:
                request.attempt = before[request.n] = 0

    recovery.prepare = prepare


# G5


@mutation
def epoch_is_not_looked_at() -> None:
    original = Session.attach

    def attach(self: Session, out: Any, hello: wire.Hello, *args: Any) -> None:
        seq = min(hello.seq, self._next_seq - 1)
        original(self, out, replace(hello, epoch=self._rules.epoch, seq=seq), *args)

    Session.attach = attach


@mutation
def events_come_again_in_the_same_epoch() -> None:
    original = Session.attach

    def attach(self: Session, out: Any, hello: wire.Hello, *args: Any) -> None:
        original(self, out, replace(hello, epoch="another"), *args)

    Session.attach = attach


@mutation
def unacknowledged_events_are_lost() -> None:
    original = Session.attach

    def attach(self: Session, out: Any, hello: wire.Hello, *args: Any) -> None:
        seen = replace(hello, epoch=self._rules.epoch, seq=self._next_seq - 1)
        original(self, out, seen, *args)

    Session.attach = attach


@mutation
def number_of_an_event_is_skipped() -> None:
    original = Session._announce

    def announce(self: Session, ended: Sequence[RequestState]) -> None:
        if self._next_seq % 10 == 0:
            self._next_seq += 1
        original(self, ended)

    Session._announce = announce


@mutation
def results_of_an_older_attempt_come_too() -> None:
    RequestState.restart = lambda self: None


# Two servers


@mutation
def nothing_is_fenced() -> None:
    async def fence(self: MongodbLog, owner: str) -> None:
        pass

    MongodbLog._fence = fence


def slow_commits() -> None:
    """Have every commit take its time."""
    original = SqliteLog.append

    async def append(self: SqliteLog, owner: str, seq: int, data: bytes) -> None:
        await asyncio.sleep(COMMIT_SECONDS)
        await original(self, owner, seq, data)

    SqliteLog.append = append


if __name__ == "__main__":
    slow_commits()
    MUTATIONS[sys.argv[1]]()
    sys.exit(main(["serve"]))
