"""What handlers do: they start, give results, and end."""

from typing import Any

from msgspec import UNSET

from .clients import kind_of
from .history import Emit, End, HistoryError, Start
from .rules import Broken
from .state import Request, Run, Server, Session, World


def start(world: World, event: Start) -> None:
    """Take note that a handler begins.

    Breaks G2b, G3a, G3c, G3d, G3g, G3i, G4a, G4c, G4d, G4f, G4g.
    """
    world.counts["starts"] += 1
    server = _living(world, event)
    if event.session in world.gone:
        if server.successors:
            return
        raise Broken("G2b", f"n {event.n} runs, its session is over", event.n)
    if server.served_at is None:
        server.served_at = event.t
    session = world.session(event.session, server.journal)
    _check_alone(world, server, event)
    _check_next(world, server, event)
    request = _request(world, session, server, event)
    if request is None:
        return
    _check_attempt(world, server, request, event)
    _check_kind(world, session, request, event)
    run = Run(request, event.attempt, server, event.pid)
    request.runs[event.attempt] = run
    request.attempt = max(request.attempt, event.attempt)
    request.deaths_at_start = server.journal.deaths
    request.live |= event.live
    request.once |= event.replay != "always"
    session.started_n = max(session.started_n, event.n)
    server.running[event.session] = run
    server.started[event.session] = event.n
    if event.attempt > 1:
        world.replayed.add(event.method)
    if len(request.runs) > 1:
        world.counts["replays"] += 1


def _living(world: World, event: Start | Emit | End) -> Server:
    """Return the server of a handler, which must be there still."""
    server = world.server(event.server)
    world.checks["G3i"] += 1
    if server.down:
        raise Broken("G3i", f"n {event.n} runs, but {server.name} is gone", event.n)
    return server


def _check_alone(world: World, server: Server, event: Start) -> None:
    world.checks["G3c"] += 1
    running = server.running.get(event.session)
    if running is None:
        return
    n = running.request.n
    if not running.pooled:
        raise Broken("G3c", f"n {event.n} starts while n {n} runs", event.n)
    running.dead = True  # or it would not be over


def _check_next(world: World, server: Server, event: Start) -> None:
    world.checks["G3d"] += 1
    before = server.started.get(event.session, 0)
    if event.n < before:
        raise Broken("G3d", f"n {event.n} starts after n {before}", event.n)


def _request(world: World, session: Session, server: Server, event: Start) -> Request | None:
    """Return the request that starts; None in a server that does not know how far it is."""
    n = event.n
    sealed = bool(server.successors)
    if session.forgotten(n):
        if sealed:
            return None
        raise Broken("G2b", f"n {n} runs, its end was acknowledged", n)
    request = session.request(n, event.id)
    if sealed:
        return request
    world.checks["G2b"] += 1
    if request.end is not None or request.over:
        raise Broken("G2b", f"n {n} runs, though it has ended", n)
    return request


def _check_attempt(world: World, server: Server, request: Request, event: Start) -> None:
    n, attempt = event.n, event.attempt
    world.checks["G3g"] += 1
    if attempt in request.runs:
        raise Broken("G3g", f"attempt {attempt} of n {n} starts twice", n)
    if request.once and request.runs:
        raise Broken("G4f", f"n {n} must not run twice, but starts in attempt {attempt}", n)
    if server.successors:
        return
    latest = max(request.attempt, request.durable_attempt)
    if attempt <= latest:
        raise Broken("G3g", f"attempt {attempt} of n {n} after attempt {latest}", n)
    last = request.runs.get(request.attempt)
    if event.pid != server.pid or (last is not None and last.pooled):
        return  # the process of a pool may have died before it said that it started
    world.checks["G4c"] += 1
    if last is not None and last.server is server:
        raise Broken("G4c", f"n {n} starts again in {server.name}", n)
    deaths = server.journal.deaths - request.deaths_at_start
    if attempt > latest + 1 + deaths:
        raise Broken("G3g", f"attempt {attempt} of n {n} after {latest} and {deaths} crashes", n)


def _check_kind(world: World, session: Session, request: Request, event: Start) -> None:
    if not session.known:
        return
    params: Any = event.params
    world.checks["G4d"] += 1
    kinds = {copy.kind for copy in session.asked.get(request.id, ())}
    if request.kind is not None:
        kinds = {request.kind}
    if not kinds:
        return
    if params is UNSET:
        if event.method not in {method for method, _ in kinds}:
            raise Broken("G4d", f"n {event.n} runs {event.method!r}", event.n)
    elif kind_of(event.method, params) not in kinds:
        raise Broken("G4d", f"n {event.n} runs {event.method!r} with other params", event.n)


def emit(world: World, event: Emit) -> None:
    """Take note of what a handler gives. Breaks G3c and G3i."""
    run = _run(world, event)
    if run is None:
        return
    if event.index != len(run.items):
        raise HistoryError(f"n {event.n} gives item {event.index} after {len(run.items)} items")
    run.items.append(event.data)


def end(world: World, event: End) -> None:
    """Take note that a handler is over. Breaks G3c and G3i."""
    run = _run(world, event)
    if run is None:
        return
    run.how = event.how
    server = run.server
    if server.running.get(event.session) is run:
        del server.running[event.session]


def _run(world: World, event: Emit | End) -> Run | None:
    """Return the run that says something; None when its request is not remembered."""
    _living(world, event)
    session = world.sessions.get(event.session)
    if session is None or session.forgotten(event.n):
        return None
    request = session.requests.get(event.n)
    run = request.runs.get(event.attempt) if request is not None else None
    if run is None:
        if request is not None and request.packed:
            return None
        raise HistoryError(f"attempt {event.attempt} of n {event.n} did not start")
    if run.dead:
        raise Broken("G3c", f"n {event.n} still runs, though another has started", event.n)
    return run
