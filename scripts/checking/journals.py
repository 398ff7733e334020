"""What the driver sees: processes that come and go, what the journal says then, and rest."""

from .history import (
    DatabaseKill,
    DatabaseUp,
    Down,
    Durable,
    DurableSession,
    HistoryError,
    Kill,
    Quiet,
    Stop,
    Up,
)
from .outcomes import CANCELLED, DONE
from .rules import Broken
from .state import Journal, Request, Server, Session, World


def up(world: World, event: Up) -> None:
    """Take note of a new server process."""
    if event.server in world.servers:
        raise HistoryError(f"server {event.server!r} is started twice")
    journal = world.journals.setdefault(event.journal, Journal())
    server = Server(event.server, event.pid, journal)
    for other in journal.servers.values():
        other.successors[server.name] = server
        journal.deaths += 1
    journal.servers[server.name] = world.servers[server.name] = server
    world.counts["servers"] += 1


def kill(world: World, event: Kill) -> None:
    """Take note that a server is to die."""
    world.server(event.server).killed = True
    world.counts["kills"] += 1


def stop(world: World, event: Stop) -> None:
    """Take note that a server is to stop in good order."""
    server = world.server(event.server)
    server.stopping = not world.database_down
    server.database_kills = world.database_kills
    world.counts["stops"] += 1


def database_kill(world: World, _event: DatabaseKill) -> None:
    """Take note that the database is to die."""
    world.database_down = True
    world.database_kills += 1
    world.counts["database kills"] += 1


def database_up(world: World, _event: DatabaseUp) -> None:
    """Take note that the database is there again."""
    world.database_down = False


def down(world: World, event: Down) -> None:
    """Take note that a server is gone."""
    server = world.server(event.server)
    journal = server.journal
    server.down = True
    server.running.clear()
    server.started.clear()
    journal.servers.pop(server.name, None)
    orderly = (
        server.stopping
        and not server.killed
        and event.code == 0
        and not server.successors
        and server.database_kills == world.database_kills
    )
    if not orderly:
        journal.deaths += 1
    if server.served_at is None:
        # It never got so far as to take the journal from another one.
        for other in journal.servers.values():
            other.successors.pop(server.name, None)


def durable(world: World, event: Durable) -> None:
    """Compare what the journal says with what was seen until now.

    Breaks G1a, G1b, G1c, G1j, G1k, G2a, G2d, G3a, G3d, G4a.
    """
    world.counts["durable"] += 1
    # A name is that of a process, or of the log that it wrote, which is its epoch.
    servers = [world.servers.get(name) or world.epochs.get(name) for name in event.servers]
    journals = [server.journal for server in servers if server is not None]
    for session in list(world.sessions.values()):
        if session.journal is not None and journals and session.journal not in journals:
            continue
        said = event.sessions.get(session.id)
        try:
            if said is None:
                _absent(world, session)
            else:
                _present(world, session, said, event.t)
        except Broken as broken:
            broken.session = session.id
            raise


def _absent(world: World, session: Session) -> None:
    """Look at a session that is over, or never was durable."""
    world.checks["G1a"] += 1
    if session.told_n and not session.bye:
        raise Broken("G1a", f"{session.id} is not there, {session.told_n} requests were accepted")
    world.checks["G1b"] += 1
    if session.started_n and not session.bye:
        raise Broken("G1b", f"{session.id} is not there, n {session.started_n} has run")
    for n, request in session.unsettled.items():
        world.checks["G1c"] += 1
        if not _excused(world, session, request):
            raise Broken("G1c", f"n {n} was accepted, and did not run", n)
    if session.told_n or session.started_n:
        # Otherwise the commit that it begins with may still be on its way to a database that
        # outlived the server: nothing of it was promised, and it may run.
        del world.sessions[session.id]
        world.gone.add(session.id)


def _excused(world: World, session: Session, request: Request) -> bool:
    """Tell whether `request` has run, or may have ended without."""
    if (
        request.runs
        or request.told_at is None
        or request.end is not None
        or request.id in session.cancels
        or request.n in session.cancelled_by_operator
        or session.bye_cancels
        or request.id in session.tied
    ):
        return True
    # A crash ends what must not run twice. Who was run twice elsewhere is not of these, but may
    # have been given up.
    hit = session.journal is None or session.journal.deaths > request.deaths
    method = request.kind[0] if request.kind is not None else None
    return hit and (method not in world.replayed or request.durable_attempt > 1)


def _present(world: World, session: Session, said: DurableSession, t: float) -> None:
    checks = world.checks
    last_n = said.last_n
    checks["G1a"] += 1
    if session.told_n > last_n:
        raise Broken("G1a", f"n {session.told_n} was accepted, the journal ends at n {last_n}")
    checks["G1b"] += 1
    if session.started_n > last_n:
        raise Broken("G1b", f"n {session.started_n} has run, the journal ends at n {last_n}")
    checks["G1k"] += 1
    if said.closed and not session.bye:
        raise Broken("G1k", f"{session.id} is closed, nobody said `bye` or closed it")
    rows = {row[0]: row for row in said.live}
    unfinished: int | None = None
    for n, request_id, attempt, outcome in said.live:
        checks["G3d"] += 1
        if n > last_n:
            raise Broken("G3a", f"n {n} is live, last_n is {last_n}", n)
        if outcome is None:
            unfinished = n if unfinished is None else min(n, unfinished)
        elif outcome != CANCELLED and unfinished is not None and unfinished < n:
            raise Broken("G3d", f"n {n} has ended, n {unfinished} has not", n)
        request = session.request(n, request_id)
        session.tell(request, t)
        _check_row(world, request, attempt, outcome)
    _check_missing(world, session, said, rows)
    session.durable_number = world.number


def _check_row(world: World, request: Request, attempt: int, outcome: str | None) -> None:
    n, end = request.n, request.end
    world.checks["G2a"] += 1
    if outcome is None:
        if end is not None or request.over:
            raise Broken("G2a", f"n {n} has ended, the journal does not know", n)
    elif end is not None and (end.outcome, end.attempt) != (outcome, attempt):
        raise Broken(
            "G2a",
            f"n {n} ended with {end.outcome} in attempt {end.attempt}, "
            f"the journal says {outcome} in {attempt}",
            n,
        )
    world.checks["G1j"] += 1
    if attempt < request.attempt and request.attempt > 1:
        raise Broken("G1j", f"attempt {request.attempt} of n {n} ran, {attempt} is known", n)
    if outcome == DONE and attempt not in request.runs and not request.packed:
        raise Broken("G2d", f"attempt {attempt} of n {n} is done, but did not start", n)
    request.durable_attempt = attempt
    if outcome is not None:
        request.over = True


def _check_missing(
    world: World,
    session: Session,
    said: DurableSession,
    rows: dict[int, tuple[int, str, int, str | None]],
) -> None:
    """Look at what is not live: all of it was acknowledged, or nobody will ask for it."""
    for n, request in list(session.unsettled.items()):
        if n in rows:
            continue
        if not session.bye:
            raise Broken("G1a", f"n {n}, {request.id!r}, is gone, it was not acknowledged", n)
        world.checks["G1c"] += 1
        if not _excused(world, session, request):
            raise Broken("G1c", f"n {n} was accepted, and did not run", n)
    if not session.bye:
        missing = [n for n in session.gaps if n not in rows]
        missing += [n for n in range(session.max_n + 1, said.last_n + 1) if n not in rows]
        if missing:
            raise Broken("G1a", f"n {missing[0]} is gone before the client knew of it", missing[0])
    for request in session.acknowledged:
        if request.n not in rows:
            session.requests.pop(request.n, None)


def quiet(world: World, _event: Quiet) -> None:
    """Look whether anything is left to be done. Breaks G1f, G5a."""
    for session in world.sessions.values():
        if session.bye or not session.known:
            continue
        try:
            _check_rest(world, session)
        except Broken as broken:
            broken.session = session.id
            raise


def _check_rest(world: World, session: Session) -> None:
    world.checks["G1f"] += 1
    for n, request in session.unended.items():
        if request.told_at is not None:
            raise Broken("G1f", f"n {n}, {request.id!r}, has not ended", n)
    for request_id, copies in session.asked.items():
        if request_id not in session.ids and any(c.conn in world.connections for c in copies):
            raise Broken("G1f", f"{request_id!r} was sent, and never answered")
    view = session.view
    if view is not None and view.seq < view.given:
        raise Broken("G5a", f"event {view.seq + 1} of {view.given} never came")
