"""What the checker knows of servers, connections, sessions and requests. See checker.py."""

from collections import Counter, deque
from typing import Any, Final

from msgspec import Struct, field

from .history import Frame, HistoryError, Send
from .rules import RULES, Broken

ACKNOWLEDGED_MAX: Final = 1000
"""So many acknowledged requests of a session are remembered, which is what G4 promises."""
DATA_MAX: Final = 100
"""Of so many of them the results, too."""
VIEWS_MAX: Final = 8
"""So many epochs of a session are remembered, for connections that are read late."""
JUMP_MAX: Final = 100_000
END: Final = -1
"""The index of the event that ends a request."""


class Journal(Struct, eq=False):
    """A journal; `deaths` counts the processes that did not leave it in good order."""

    deaths: int = 0
    servers: dict[str, "Server"] = field(default_factory=dict[str, "Server"])


class Server(Struct, eq=False):
    """A server process.

    `successors` are processes that took its journal while it was there: it may not know, and runs
    what its queues hold until it notices. `served_at` is when it is first known to have taken over.
    """

    name: str
    pid: int
    journal: Journal
    epoch: str | None = None
    down: bool = False
    killed: bool = False
    stopping: bool = False
    database_kills: int = 0
    served_at: float | None = None
    successors: dict[str, "Server"] = field(default_factory=dict[str, "Server"])
    running: dict[str, "Run"] = field(default_factory=dict[str, "Run"])
    started: dict[str, int] = field(default_factory=dict[str, int])


class Run(Struct, eq=False):
    """One run of a handler: what it gave so far, and how it ended."""

    request: "Request"
    attempt: int
    server: Server
    pid: int
    items: list[Any] = field(default_factory=list[Any])
    how: str | None = None
    dead: bool = False

    @property
    def pooled(self) -> bool:
        """Tell whether it runs in a process that may die alone."""
        return self.pid != self.server.pid


class End(Struct, frozen=True):
    """How a request ended, as the client was told; `detail` is the message, or `results`."""

    outcome: str
    attempt: int
    detail: Any


class Copy(Struct, eq=False):
    """A request as it was sent once and not answered yet: `kind` is its method and params.

    `position` counts what the session's client sent, `deaths` those of the journal by then.
    """

    position: int
    conn: int
    t: float
    deaths: int
    kind: tuple[str, int]


Entry = tuple["Request | None", int, int]
"""What an event is: the request, if it is remembered, attempt, and index."""


class View(Struct, eq=False):
    """The events of a session in one epoch, as its client saw them.

    `seq` is the last one it saw, `given` the last one `welcome` spoke of, `acked` the last one it
    acknowledged; `unacked` are those in between. The others are the highest n of results and ends.
    """

    epoch: str
    seq: int = 0
    given: int = 0
    acked: int = 0
    unacked: deque["Entry"] = field(default_factory=deque["Entry"])
    result_n: int = 0
    end_n: int = 0


class Request(Struct, eq=False):
    """One request of a session.

    `told_at` is when its client first knew its n. `attempt` is the highest that started,
    `durable_attempt` what the journal said last. `have_acked` counts the results of attempt
    `seen_attempt` that the client acknowledged; `next_index` is the next one of `view`. `end` is
    what the client saw, `over` tells that the server said it has ended, `acked` that an
    acknowledgement of the end was sent, `packed` that the results are not remembered.
    """

    n: int
    id: str
    deaths: int
    told_at: float | None = None
    kind: tuple[str, int] | None = None
    runs: dict[int, Run] = field(default_factory=dict[int, Run])
    attempt: int = 0
    durable_attempt: int = 0
    deaths_at_start: int = 0
    once: bool = False
    live: bool = False
    seen_attempt: int = 0
    have_acked: int = 0
    view: View | None = None
    next_index: int = 0
    end: End | None = None
    end_view: View | None = None
    over: bool = False
    acked: bool = False
    packed: bool = False


class Session(Struct, eq=False):
    """One session.

    `requests` by n: those not acknowledged, and the last that were; `ids` also has older ones.
    `unsettled` are those not acknowledged, `unended` those whose end its client has not seen.
    `gaps` are the numbers below `max_n` that nobody has named yet. `newest` is
    its last connection.
    """

    id: str
    journal: Journal | None = None
    known: bool = False
    bye: bool = False
    bye_cancels: bool = False
    told_at: float | None = None
    told_n: int = 0
    started_n: int = 0
    max_n: int = 0
    server: Server | None = None
    view: View | None = None
    durable_number: int = 0
    positions: int = 0
    newest: int = 0
    conns: list[int] = field(default_factory=list[int])
    views: dict[str, View] = field(default_factory=dict[str, View])
    requests: dict[int, Request] = field(default_factory=dict[int, Request])
    ids: dict[str, int] = field(default_factory=dict[str, int])
    unsettled: dict[int, Request] = field(default_factory=dict[int, Request])
    unended: dict[int, Request] = field(default_factory=dict[int, Request])
    acknowledged: deque[Request] = field(default_factory=deque[Request])
    gaps: set[int] = field(default_factory=set[int])
    asked: dict[str, list[Copy]] = field(default_factory=dict[str, list[Copy]])
    cancels: set[str] = field(default_factory=set[str])
    cancelled_by_operator: set[int] = field(default_factory=set[int])
    tied: dict[str, int] = field(default_factory=dict[str, int])

    def forgotten(self, n: int) -> bool:
        """Tell whether `n` is that of a request acknowledged long ago."""
        return n <= self.max_n and n not in self.requests and n not in self.gaps

    def request(self, n: int, request_id: str) -> Request:
        """Return the request, which may have been unknown. Breaks G2g, G3a, G4a, G4g."""
        request = self.requests.get(n)
        if request is not None:
            if request.id != request_id:
                raise Broken("G3a", f"n {n} is {request.id!r}, now also {request_id!r}", n)
            return request
        known = self.ids.get(request_id)
        if known is not None and known != n:
            raise Broken("G4a", f"{request_id!r} is n {known}, now also {n}", n)
        if self.forgotten(n):
            raise Broken("G2g", f"n {n}, {request_id!r}, was acknowledged and is back", n)
        copies = self.asked.get(request_id, ())
        if self.known and not copies:
            raise Broken("G4g", f"n {n} is {request_id!r}, which is not waiting for an answer", n)
        if n > self.max_n:
            if n > self.max_n + JUMP_MAX:
                raise Broken("G3a", f"n {n} after {self.max_n}", n)
            self.gaps.update(range(self.max_n + 1, n))
            self.max_n = n
        else:
            self.gaps.discard(n)
        deaths = copies[0].deaths if copies else 0
        request = Request(n, request_id, deaths, deaths_at_start=deaths)
        kinds = {copy.kind for copy in copies}
        if len(kinds) == 1:
            request.kind = kinds.pop()
        self.requests[n] = self.unsettled[n] = self.unended[n] = request
        self.ids[request_id] = n
        return request

    def tell(self, request: Request, t: float) -> None:
        """Note that the client knows `request` to be accepted."""
        if request.told_at is None:
            request.told_at = t
            self.told_n = max(self.told_n, request.n)
            if self.told_at is None:
                self.told_at = t

    def acknowledge(self, request: Request) -> None:
        """Note that the client has sent the acknowledgement of an end."""
        if request.acked:
            return
        request.acked = True
        self.unsettled.pop(request.n, None)
        acknowledged = self.acknowledged
        acknowledged.append(request)
        if len(acknowledged) > DATA_MAX:
            old = acknowledged[-1 - DATA_MAX]
            old.packed = True
            old.runs = {}
        if len(acknowledged) > ACKNOWLEDGED_MAX:
            old = acknowledged.popleft()
            self.requests.pop(old.n, None)
            self.ids.pop(old.id, None)
            self.asked.pop(old.id, None)
            self.cancels.discard(old.id)
            self.cancelled_by_operator.discard(old.n)
            self.tied.pop(old.id, None)


class Connection(Struct, eq=False):
    """One connection.

    `next_n` is that of the next `accepted`, `position` that of the copy which the last one
    answered, `expected` the number of the next event, None when the
    server may choose. `early` is what was sent before `welcome`; `nonsense` counts sent frames
    that deserve `bad_frame`.
    """

    number: int
    client: str
    server: Server | None
    open: bool = True
    hello: Frame | None = None
    hello_at: float = 0.0
    sent: int = 0
    nonsense: int = 0
    welcomed: int = 0
    session: Session | None = None
    view: View | None = None
    next_n: int | None = None
    position: int = 0
    expected: int | None = None
    early: list[Send] = field(default_factory=list[Send])

    @property
    def wrong_from_the_start(self) -> bool:
        """Tell whether what was sent is not one `hello`, for whose answer the client waits."""
        return self.hello is None or self.sent > 1

    def of(self) -> tuple[Session, View]:
        """Return session and view of a connection that was welcomed."""
        if self.session is None or self.view is None:
            raise Broken("G5g", "a frame before `welcome`")
        return self.session, self.view

    @property
    def sealed(self) -> bool:
        """Tell whether its server may have lost its log."""
        return self.server is not None and bool(self.server.successors)


class World:
    """Everything there is in a history, and how often each rule was looked at.

    `gone` are sessions that are over, `replayed` methods that have run in a second attempt.
    """

    def __init__(self) -> None:
        self.number = 0
        self.journals: dict[str, Journal] = {}
        self.servers: dict[str, Server] = {}
        self.epochs: dict[str, Server] = {}
        self.connections: dict[int, Connection] = {}
        self.sessions: dict[str, Session] = {}
        self.gone: set[str] = set()
        self.replayed: set[str] = set()
        self.database_down = False
        self.database_kills = 0
        self.counts: Counter[str] = Counter()
        self.checks: dict[str, int] = dict.fromkeys(RULES, 0)

    def server(self, name: str) -> Server:
        """Return a server by name. Raises HistoryError."""
        server = self.servers.get(name)
        if server is None:
            raise HistoryError(f"no server {name!r} was started")
        return server

    def session(self, session_id: str, journal: Journal | None) -> Session:
        """Return the session, which may have been unknown."""
        session = self.sessions.get(session_id)
        if session is None:
            session = self.sessions[session_id] = Session(session_id, journal)
            self.counts["sessions"] += 1
        return session

    def connection(self, number: int) -> Connection:
        """Return a connection by number. Raises HistoryError."""
        connection = self.connections.get(number)
        if connection is None:
            raise HistoryError(f"connection {number} was not connected, or is over")
        return connection
