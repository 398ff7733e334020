"""Events: what clients get of a request's results, and of its end."""

from typing import Final

from .history import Frame
from .rules import Broken
from .state import END, Connection, End, Request, Run, Session, View, World

DONE: Final = "done"
CANCELLED: Final = "cancelled"
OF_A_CRASH: Final = {"interrupted", "invalid_params", "unknown_method"}
"""Codes that end an accepted request only when it comes to another process."""
CUT_SHORT: Final = {"cancelled", "result_too_large", "timeout"}
"""Codes of ends that do not wait for what the handler gives."""


def result(world: World, connection: Connection, frame: Frame) -> None:
    """Take note of a result. Breaks G1i, G2e, G2g, G3f, G5a, G5c, G5e, G5f, G5h."""
    session, view = connection.of()
    world.counts["results"] += 1
    attempt, index = frame["attempt"], frame["index"]
    request = _request(world, connection, session, frame["id"])
    if request is not None:
        _check_data(world, request, attempt, index, frame["data"])
    current = view is session.view
    if "seq" not in frame:
        if request is not None and current and session.newest == connection.number:
            _live_result(world, request, view, attempt, index)
        return
    fresh = _number(world, connection, view, frame["seq"], (request, attempt, index))
    if request is None or not fresh or not current:
        return
    world.checks["G3f"] += 1
    n = request.n
    if n < view.result_n:
        raise Broken("G3f", f"a result of n {n} after one of n {view.result_n}", n)
    view.result_n = n
    follows = request.view is view and attempt == request.seen_attempt
    _see_attempt(world, request, view, attempt)
    world.checks["G5c"] += 1
    if follows and index != request.next_index:
        raise Broken("G5c", f"index {index} of n {n}, not {request.next_index}", n)
    if index > request.have_acked and not follows:
        raise Broken("G5c", f"index {index} of n {n}, {request.have_acked} are acknowledged", n)
    request.view = view
    request.next_index = index + 1


def _request(
    world: World, connection: Connection, session: Session, request_id: str
) -> Request | None:
    """Return the request of an event; None when it is one acknowledged long ago."""
    world.checks["G1i"] += 1
    n = session.ids.get(request_id)
    request = session.requests.get(n) if n is not None else None
    if request is None:
        if n is None:
            raise Broken("G1i", f"an event of {request_id!r}, which is not accepted")
        if connection.welcomed > session.durable_number:
            raise Broken("G2g", f"an event of n {n}, whose end was acknowledged", n)
    elif request.told_at is None:
        raise Broken("G1i", f"an event of n {n} before it is accepted", n)
    return request


def _check_data(world: World, request: Request, attempt: int, index: int, data: object) -> None:
    if request.packed:
        return
    world.checks["G2e"] += 1
    n = request.n
    run = request.runs.get(attempt)
    if run is None:
        raise Broken("G2e", f"a result of attempt {attempt} of n {n}, which did not start", n)
    if index >= len(run.items):
        raise Broken("G2e", f"result {index} of n {n}, the handler gave {len(run.items)}", n)
    if run.items[index] != data:
        raise Broken("G2e", f"result {index} of n {n} is not what the handler gave", n)


def _number(
    world: World,
    connection: Connection,
    view: View,
    seq: int,
    entry: tuple[Request | None, int, int],
) -> bool:
    """Look at the number of an event; tell whether it is new in this epoch."""
    world.checks["G5a"] += 1
    expected = connection.expected
    if expected is None:
        if seq > view.acked + 1:
            raise Broken("G5a", f"seq {seq}, {view.acked} are acknowledged")
    elif seq != expected:
        raise Broken("G5a", f"seq {seq}, not {expected}")
    connection.expected = seq + 1
    if seq == view.seq + 1:
        view.seq = seq
        view.unacked.append(entry)
        return True
    world.checks["G5h"] += 1
    back = view.seq - seq + 1
    if back <= len(view.unacked) and view.unacked[-back] != entry:
        raise Broken("G5h", f"seq {seq} was another event")
    return False


def _see_attempt(world: World, request: Request, view: View, attempt: int) -> None:
    """Look whether an event of `attempt` may come now."""
    world.checks["G5e"] += 1
    n = request.n
    if attempt < request.seen_attempt:
        raise Broken("G5e", f"attempt {attempt} of n {n} after {request.seen_attempt}", n)
    if request.end_view is view:
        raise Broken("G5f", f"an event of n {n} after its end", n)
    if attempt > request.seen_attempt:
        request.seen_attempt = attempt
        request.have_acked = 0
        request.next_index = 0


def _live_result(world: World, request: Request, view: View, attempt: int, index: int) -> None:
    request.live = True
    follows = request.view is view and attempt == request.seen_attempt
    _see_attempt(world, request, view, attempt)
    world.checks["G5c"] += 1
    if follows and index < request.next_index:
        raise Broken("G5c", f"index {index} after {request.next_index - 1}", request.n)
    request.view = view
    request.next_index = index + 1


def end(world: World, connection: Connection, frame: Frame, outcome: str) -> None:
    """Take note of the end of a request.

    Breaks G1g, G1i, G2b, G2c, G2d, G2g, G3e, G5a, G5d, G5e, G5f, G5h.
    """
    session, view = connection.of()
    world.counts["ends"] += 1
    request = _request(world, connection, session, frame["id"])
    attempt = frame["attempt"]
    detail = frame["results"] if outcome == DONE else frame["message"]
    entry = (request, attempt, END)
    if request is None:
        _number(world, connection, view, frame["seq"], entry)
        return
    n = request.n
    ending = End(outcome, attempt, detail)
    world.checks["G2c"] += 1
    if request.end is not None and request.end != ending:
        raise Broken("G2c", f"n {n} ends with {_say(ending)}, before with {_say(request.end)}", n)
    fresh = _number(world, connection, view, frame["seq"], entry)
    current = view is session.view
    if fresh and current:
        _see_attempt(world, request, view, attempt)
        _check_order(world, connection, session, view, request, outcome)
        request.end_view = view
    if request.end is None:
        _check_end(world, connection, session, request, ending)
        if current:
            _check_complete(world, session, view, request, ending)
        request.end = ending
        session.unended.pop(n, None)


def _say(ending: End) -> str:
    return f"{ending.outcome}, attempt {ending.attempt}, {ending.detail!r}"


def _check_order(
    world: World,
    connection: Connection,
    session: Session,
    view: View,
    request: Request,
    outcome: str,
) -> None:
    run = request.runs.get(request.attempt)
    if outcome == CANCELLED and (run is None or run.server is not connection.server):
        return  # it may have been waiting
    world.checks["G3e"] += 1
    n = request.n
    if n < view.end_n:
        raise Broken("G3e", f"the end of n {n} after that of n {view.end_n}", n)
    view.end_n = n
    unended = session.unended
    if unended and min(unended) < n:
        for m, other in unended.items():
            if m < n and other.told_at is not None:
                raise Broken("G3e", f"the end of n {n} before that of n {m}", n)


def _check_end(
    world: World, connection: Connection, session: Session, request: Request, ending: End
) -> None:
    """Look whether a request may end like this."""
    n, attempt = request.n, ending.attempt
    world.checks["G2b"] += 1
    if attempt < request.attempt:
        raise Broken("G2b", f"the end of attempt {attempt} of n {n}: {request.attempt} began", n)
    run = request.runs.get(attempt)
    if ending.outcome == DONE:
        _check_done(world, request, ending, run)
        return
    world.checks["G1g"] += 1
    if ending.outcome == CANCELLED and not _to_be_cancelled(connection, session, request):
        raise Broken("G1g", f"n {n} was cancelled, but nobody asked for that", n)
    if ending.outcome in OF_A_CRASH and not _hit(session, request):
        raise Broken("G1g", f"n {n} ended with {ending.outcome}, but no crash hit it", n)


def _check_done(world: World, request: Request, ending: End, run: Run | None) -> None:
    n, attempt = request.n, ending.attempt
    world.checks["G2d"] += 1
    if run is None:
        raise Broken("G2d", f"attempt {attempt} of n {n} is done, but did not start", n)
    if run.how != "returned":
        raise Broken("G2d", f"attempt {attempt} of n {n} is done, but {run.how or 'runs'}", n)
    if ending.detail != len(run.items):
        raise Broken("G2d", f"n {n} has {ending.detail} results, it gave {len(run.items)}", n)


def _check_complete(
    world: World, session: Session, view: View, request: Request, ending: End
) -> None:
    """Look whether the client has, in this epoch or acknowledged, what the request gave."""
    run = request.runs.get(ending.attempt)
    if run is None or request.live:
        return
    # A raise is the end only if no crash came between it and its commit.
    undisturbed = session.journal is None or request.deaths_at_start == session.journal.deaths
    raised = run.how == "raised" and undisturbed and not run.pooled
    if ending.outcome != DONE and (not raised or ending.outcome in CUT_SHORT):
        return
    world.checks["G5d"] += 1
    have = request.next_index if request.view is view else request.have_acked
    if have != len(run.items):
        n = request.n
        raise Broken("G5d", f"n {n} ended, the client has {have} of {len(run.items)} results", n)


def _to_be_cancelled(connection: Connection, session: Session, request: Request) -> bool:
    if request.id in session.cancels or session.bye_cancels:
        return True
    if request.n in session.cancelled_by_operator:
        return True
    tied = session.tied.get(request.id)
    return tied is not None and tied != connection.number


def _hit(session: Session, request: Request) -> bool:
    """Tell whether a process may have died with `request`."""
    return (
        session.journal is None
        or session.journal.deaths > request.deaths
        or any(run.pooled for run in request.runs.values())
    )
