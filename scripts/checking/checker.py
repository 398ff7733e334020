"""The checker: the events of a history in, the first violation of a rule (rules.py) out.

It knows nothing of the server's code, and believes nobody but those who saw what happened:

    clients.py   what clients send           replies.py    welcome, accepted, refusals
    handlers.py  what handlers run and give  outcomes.py   results and ends
    operators.py what operators end and run again
    journals.py  processes, the journal while nobody writes it, rest

What it remembers (state.py) is bounded by the server's own limits, not by the length of the
history: of each session what is not acknowledged, the last 1,000 acknowledged requests (of the
last 100 with their results), and a few words for each connection, process and session that is over.

It takes every session and result for kept: a run is shorter than `session_ttl` and `result_ttl`.
A stopped process whose log was sealed (SIGSTOP, a successor, SIGCONT) may run what it holds, and
say what it knows, until it notices; but what it promises must be true in the successor.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from msgspec import Struct

from . import clients, handlers, history, journals, operators, outcomes, replies
from .history import Event, Recv
from .rules import Broken
from .state import Session, World


class Violation(Struct, frozen=True):
    """A rule is broken: how, by which event (and its place in the history), and of what."""

    rule: str
    text: str
    number: int
    event: Event
    session: str | None
    n: int | None
    request_id: str | None
    conns: frozenset[int]


_FIELDS: Final = {
    "welcome": {"session", "resumed", "epoch", "seq", "requests"},
    "accepted": {"id", "n"},
    "started": {"id", "attempt"},
    "result": {"id", "attempt", "index", "data"},
    "done": {"id", "seq", "attempt", "results"},
    "error": {"code", "message", "retryable"},
    "refreshed": {"expires_at"},
    "goaway": {"reason", "reconnect_after"},
}
_FIELDS_OF_AN_END: Final = {"id", "attempt"}


class Checker:
    """Takes the events of one history in order of time."""

    def __init__(self) -> None:
        self.world = World()
        self.violation: Violation | None = None

    def feed(self, event: Event) -> Violation | None:
        """Take one event; return the first violation. Raises HistoryError."""
        if self.violation is not None:
            return self.violation
        world = self.world
        world.number += 1
        take = _TAKE.get(type(event))
        if take is not None:
            try:
                take(world, event)
            except Broken as broken:
                self.violation = _violation(world, event, broken)
        return self.violation


def check(events: Iterable[Event]) -> Violation | None:
    """Return the first violation in `events`, which are in order of time. Raises HistoryError."""
    checker = Checker()
    for event in events:
        if checker.feed(event) is not None:
            break
    return checker.violation


def _receive(world: World, event: Recv) -> None:
    connection = world.connection(event.conn)
    frame = event.frame
    kind = frame.get("type", "")
    fields = _FIELDS.get(kind)
    if fields is None or not fields <= frame.keys():
        raise Broken("W4", f"{kind!r} without {sorted((fields or set()) - frame.keys())}")
    match kind:
        case "result":
            outcomes.result(world, connection, frame)
        case "accepted":
            replies.accepted(world, connection, event.t, frame)
        case "done":
            outcomes.end(world, connection, frame, outcomes.DONE)
        case "welcome":
            replies.welcome(world, connection, event.t, frame)
        case "error" if "seq" not in frame:
            replies.refused(world, connection, frame)
        case "error":
            if not frame.keys() >= _FIELDS_OF_AN_END:
                raise Broken("W4", "an `error` with seq, but without id or attempt")
            outcomes.end(world, connection, frame, frame["code"])
        case _:
            pass  # what says nothing of a request's fate


_TAKE: Final[dict[type, Callable[[World, Any], None]]] = {
    Recv: _receive,
    history.Send: clients.send,
    history.Start: handlers.start,
    history.Emit: handlers.emit,
    history.End: handlers.end,
    history.Connect: clients.connect,
    history.Disconnect: clients.disconnect,
    history.Up: journals.up,
    history.Kill: journals.kill,
    history.Stop: journals.stop,
    history.Down: journals.down,
    history.DatabaseKill: journals.database_kill,
    history.DatabaseUp: journals.database_up,
    history.OperatorCancel: operators.cancel,
    history.OperatorClose: operators.close,
    history.OperatorRetry: operators.retry,
    history.Durable: journals.durable,
    history.Quiet: journals.quiet,
}


def _violation(world: World, event: Event, broken: Broken) -> Violation:
    session_id = broken.session or getattr(event, "session", None)
    session: Session | None = world.sessions.get(session_id) if session_id is not None else None
    number = getattr(event, "conn", None)
    if session is None and number is not None and number in world.connections:
        session = world.connections[number].session
    request = session.requests.get(broken.n) if session is not None and broken.n else None
    conns = {*(session.conns if session is not None else ()), *((number,) if number else ())}
    return Violation(
        broken.rule,
        str(broken),
        world.number,
        event,
        session.id if session is not None else session_id,
        broken.n,
        request.id if request is not None else None,
        frozenset(conns),
    )
