"""What servers say about sessions and requests: `welcome`, `accepted`, and refusals."""

from typing import Final

from .clients import send_early
from .history import Frame, HistoryError
from .rules import Broken
from .state import VIEWS_MAX, Connection, Copy, Request, Server, Session, View, World

REFUSALS: Final = {
    "bad_frame",
    "forbidden",
    "id_conflict",
    "invalid_params",
    "journal_unavailable",
    "overloaded",
    "rate_limited",
    "unknown_method",
    "window_exceeded",
}


# welcome


def welcome(world: World, connection: Connection, t: float, frame: Frame) -> None:
    """Take note of the session a connection has. Breaks G1d, G1e, G2f, G3h, G5b, G5g."""
    hello = connection.hello
    if hello is None or connection.session is not None:
        raise Broken("G5g", "`welcome` without a `hello`")
    server = _server_of(world, connection, frame["epoch"])
    if server is not None and server.served_at is None:
        server.served_at = t
    session = _session_of(world, connection, hello, frame)
    session.known = True
    session.conns.append(connection.number)
    session.newest = connection.number
    view = _view_of(world, connection, session, hello, frame)
    connection.session = session
    connection.view = view
    connection.welcomed = world.number
    _read_manifest(world, connection, session, t, frame["requests"])
    if not connection.sealed:
        session.view = view
        session.server = server
        connection.next_n = session.told_n + 1
    send_early(world, connection, session)


def _server_of(world: World, connection: Connection, epoch: str) -> Server | None:
    world.checks["G5g"] += 1
    known = world.epochs.get(epoch)
    if connection.server is None:
        connection.server = known
        return known
    server = world.epochs.setdefault(epoch, connection.server)
    if server is not connection.server:
        raise Broken("G5g", f"epoch {epoch} is that of {server.name}")
    if server.epoch is not None and server.epoch != epoch:
        raise Broken("G5g", f"{server.name} had epoch {server.epoch}, now {epoch}")
    server.epoch = epoch
    return server


def _session_of(world: World, connection: Connection, hello: Frame, frame: Frame) -> Session:
    session_id = frame["session"]
    wanted = hello.get("session")
    journal = connection.server.journal if connection.server is not None else None
    if frame["resumed"]:
        world.counts["resumed"] += 1
        if session_id != wanted:
            raise Broken("G5g", f"resumed {session_id}, not {wanted}")
        if session_id in world.gone:
            raise Broken("G5g", f"{session_id} is over")
        return world.session(session_id, journal)
    known = world.sessions.get(session_id)
    if (known is not None and known.known) or session_id in world.gone:
        raise Broken("G5g", f"the new session {session_id} is an old one")
    if wanted is not None:
        _check_lost(world, connection, world.sessions.get(wanted))
    if frame["seq"] != 0 or frame["requests"]:
        raise Broken("G5b", "a new session with something in it")
    return world.session(session_id, journal)


def _check_lost(world: World, connection: Connection, wanted: Session | None) -> None:
    """Look whether a session may be unknown to the server."""
    world.checks["G1e"] += 1
    if wanted is None or wanted.bye or connection.sealed:
        return
    if wanted.told_at is not None and wanted.told_at < connection.hello_at:
        raise Broken("G1e", f"{wanted.id} is not known, {wanted.told_n} requests were accepted")
    if wanted.server is not None and wanted.server is connection.server:
        raise Broken("G1e", f"{wanted.id} is not known to the process that opened it")


def _view_of(
    world: World, connection: Connection, session: Session, hello: Frame, frame: Frame
) -> View:
    world.checks["G5b"] += 1
    epoch = frame["epoch"]
    view = session.views.get(epoch)
    if view is None:
        if len(session.views) >= VIEWS_MAX:
            del session.views[next(iter(session.views))]
        view = session.views[epoch] = View(epoch)
        if frame["resumed"] and hello.get("epoch") == epoch:  # one not remembered any more
            view.seq = view.acked = hello.get("seq", 0)
    if frame["seq"] < view.seq:
        raise Broken("G5b", f"welcome.seq is {frame['seq']}, {view.seq} was there before")
    view.given = max(view.given, frame["seq"])
    seen = hello.get("seq", 0)
    if frame["resumed"] and hello.get("epoch") == epoch:
        if seen > view.seq:
            raise HistoryError(f"{connection.client} says it has seen event {seen}")
        connection.expected = seen + 1 if seen >= view.acked else None
    else:
        connection.expected = 1 if view.acked == 0 else None
    return view


def _read_manifest(
    world: World, connection: Connection, session: Session, t: float, rows: list[Frame]
) -> None:
    checks = world.checks
    before = 0
    listed: set[int] = set()
    for row in rows:
        n = row["n"]
        checks["G3h"] += 1
        if n <= before:
            raise Broken("G3h", f"n {n} after {before}", n)
        before = n
        listed.add(n)
        request = session.request(n, row["id"])
        if not connection.sealed:
            checks["G2f"] += 1
            _check_row(request, row)
        session.tell(request, t)
    if connection.sealed:
        return
    for n, request in session.unsettled.items():
        checks["G1d"] += 1
        told_at = request.told_at
        if n not in listed and told_at is not None and told_at < connection.hello_at:
            raise Broken("G1d", f"n {n}, {request.id!r}, is not in the list", n)


def _check_row(request: Request, row: Frame) -> None:
    n, state, attempt = request.n, row["state"], row["attempt"]
    end = request.end
    if attempt < request.seen_attempt:
        raise Broken("G2f", f"attempt {attempt}, the client saw {request.seen_attempt}", n)
    if state == "ended":
        request.over = True
        if end is None:
            return
        if attempt != end.attempt:
            raise Broken("G2f", f"ended in attempt {attempt}, the client saw {end.attempt}", n)
        if end.outcome == "done" and row["results"] != end.detail:
            raise Broken("G2f", f"{row['results']} results, the client saw {end.detail}", n)
    elif request.over or end is not None:
        raise Broken("G2f", f"{state}, though it has ended", n)


# accepted


def accepted(world: World, connection: Connection, t: float, frame: Frame) -> None:
    """Take note of an accepted request. Breaks G1h, G3a, G3b, G4a, G4b, G4e, G4g."""
    session, _ = connection.of()
    if frame.get("duplicate"):
        _duplicate(world, connection, session, frame)
        return
    world.counts["accepted"] += 1
    checks = world.checks
    n, request_id = frame["n"], frame["id"]
    checks["G3a"] += 1
    if connection.next_n is not None and n != connection.next_n:
        raise Broken("G3a", f"{request_id!r} is n {n}, not {connection.next_n}", n)
    connection.next_n = n + 1
    checks["G4a"] += 1
    request = session.request(n, request_id)
    new = request.told_at is None
    session.tell(request, t)
    copies = session.asked.get(request_id)
    if not copies:
        return  # it was told of, and answered, by a newer connection
    checks["G3b"] += 1
    copy = _first_behind(connection.position, copies)
    if copy is not None:
        connection.position = copy.position
        _check_sealed(world, connection, copy, n)
        kinds = {c.kind for c in copies}
        request.kind = kinds.pop() if len(kinds) == 1 else None
        session.asked[request_id] = [c for c in copies if c.position > copy.position]
    elif new:
        raise Broken("G3b", f"n {n}, {request_id!r}, was sent before the one with n {n - 1}", n)


def _first_behind(position: int, copies: list[Copy]) -> Copy | None:
    return next((copy for copy in copies if copy.position > position), None)


def _check_sealed(world: World, connection: Connection, copy: Copy, n: int) -> None:
    server = connection.server
    if server is None or not server.successors:
        return
    world.checks["G1h"] += 1
    for successor in server.successors.values():
        if successor.served_at is not None and successor.served_at < copy.t:
            raise Broken(
                "G1h", f"n {n} was sent to {server.name} when {successor.name} had its journal", n
            )


def _duplicate(world: World, connection: Connection, session: Session, frame: Frame) -> None:
    world.counts["duplicates"] += 1
    world.checks["G4b"] += 1
    n, request_id = frame["n"], frame["id"]
    known = session.ids.get(request_id)
    if known is None:
        if not session.forgotten(n):
            raise Broken("G4b", f"{request_id!r} is called a duplicate, but is new", n)
        return
    if known != n:
        raise Broken("G4a", f"{request_id!r} is n {known}, now also {n}", n)
    request = session.requests.get(n)
    if request is None:
        return
    if request.told_at is None:
        raise Broken("G4b", f"{request_id!r} is a duplicate of what was never accepted", n)
    if (
        session.newest == connection.number
        and not connection.sealed
        and request.end is not None
        and frame.get("state") not in {"ended", "acknowledged"}
    ):
        raise Broken("G4b", f"state {frame.get('state')}, though it has ended", n)
    world.checks["G4e"] += 1
    copies = [c for c in session.asked.get(request_id, ()) if c.conn == connection.number]
    same = next((c for c in copies if request.kind is None or c.kind == request.kind), None)
    if same is not None:
        session.asked[request_id].remove(same)
    elif copies:
        raise Broken("G4e", f"{request_id!r} with other method or params is a duplicate", n)


# Refusals


def refused(world: World, connection: Connection, frame: Frame) -> None:
    """Take note that a frame was refused. Breaks G4e, W1, W3."""
    code = frame["code"]
    if connection.session is None and connection.wrong_from_the_start:
        return
    session, _ = connection.of()
    world.counts["refused"] += 1
    world.checks["W1"] += 1
    if code not in REFUSALS:
        raise Broken("W1", f"refused with {code}")
    if code == "bad_frame":
        world.checks["W3"] += 1
        if connection.nonsense == 0:
            raise Broken("W3", f"bad_frame: {frame.get('message')}")
        connection.nonsense -= 1
        return
    request_id = frame.get("id")
    if request_id is None:
        return
    copies = session.asked.get(request_id, [])
    here = [c for c in copies if c.conn == connection.number]
    if code == "id_conflict":
        world.checks["G4e"] += 1
        copy = _conflicting(session, request_id, copies, here)
    else:
        copy = here[0] if here else None
    if copy is None:
        raise Broken("W1", f"{request_id!r} is refused with {code}, but is not waiting for that")
    copies.remove(copy)
    if not copies:
        del session.asked[request_id]


def _conflicting(
    session: Session, request_id: str, copies: list[Copy], here: list[Copy]
) -> Copy | None:
    """Return which of `here` differs from the request that has this id."""
    n = session.ids.get(request_id)
    request = session.requests.get(n) if n is not None else None
    kind = request.kind if request is not None else None
    if kind is None and copies:
        kind = copies[0].kind
    other = next((copy for copy in here if copy.kind != kind), None)
    if other is None and here and request is not None and request.kind is not None:
        raise Broken("G4e", f"{request_id!r} is the same as before", n)
    return other or (here[-1] if here else None)
