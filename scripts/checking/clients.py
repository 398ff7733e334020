"""What clients do: they connect, send frames, and lose connections."""

from typing import Any, Final, cast

from .history import Connect, Disconnect, Frame, HistoryError, Send
from .rules import Broken
from .state import END, Connection, Copy, Session, World

ID_LENGTH_MAX: Final = 128
TIMEOUT_SECONDS_MAX: Final = 86_400
FAULTS: Final = {
    1002: "a protocol error",
    1003: "data it cannot take",
    1007: "data that is not text",
    1011: "an internal error",
}
"""Close codes with which a server says that it, or a client of these, is wrong."""
PROTOCOL_ERROR: Final = 4500


def connect(world: World, event: Connect) -> None:
    """Take note of a new connection."""
    if event.conn in world.connections:
        raise HistoryError(f"connection {event.conn} is connected twice")
    server = world.server(event.server) if event.server else None
    world.connections[event.conn] = Connection(event.conn, event.client, server)
    world.counts["connections"] += 1


def disconnect(world: World, event: Disconnect) -> None:
    """Take note that a connection is over. Breaks W2."""
    connection = world.connection(event.conn)
    del world.connections[event.conn]
    world.checks["W2"] += 1
    if event.code in FAULTS:
        raise Broken("W2", f"closed with {event.code}: {FAULTS[event.code]}")
    if event.code == PROTOCOL_ERROR and (
        connection.session is not None or not connection.wrong_from_the_start
    ):
        raise Broken("W2", "closed with 4500 though nothing was wrong with what was sent")


def send(world: World, event: Send) -> None:
    """Take note of a frame on its way."""
    connection = world.connection(event.conn)
    connection.sent += 1
    if connection.session is not None:
        _send(world, connection, connection.session, event)
    elif isinstance(event.frame, dict) and event.frame.get("type") == "hello":
        connection.hello = event.frame
        connection.hello_at = event.t
    else:
        connection.early.append(event)


def send_early(world: World, connection: Connection, session: Session) -> None:
    """Take note of what was sent before the session was known."""
    for event in connection.early:
        _send(world, connection, session, event)
    connection.early.clear()


def _send(world: World, connection: Connection, session: Session, event: Send) -> None:
    frame = event.frame
    if not isinstance(frame, dict):
        connection.nonsense += 1
        return
    match frame.get("type"):
        case "request" if _well_formed(frame):
            _ask(session, connection, event.t, frame)
        case "ack" if isinstance(frame.get("seq"), int):
            _acknowledge(connection, session, frame["seq"])
        case "cancel" if isinstance(frame.get("id"), str):
            session.cancels.add(frame["id"])
            if frame["id"] not in session.ids:
                connection.nonsense += 1  # the server may not know it
        case "bye":
            session.bye = True
            session.bye_cancels |= frame.get("cancel") is True
        case "refresh":
            pass
        case _:
            connection.nonsense += 1


def _well_formed(frame: Frame) -> bool:
    timeout = frame.get("timeout")
    return (
        isinstance(frame.get("id"), str)
        and 0 < len(frame["id"]) <= ID_LENGTH_MAX
        and isinstance(frame.get("method"), str)
        and isinstance(frame.get("params", {}), dict)
        and (
            timeout is None
            or (isinstance(timeout, int | float) and 0 < timeout <= TIMEOUT_SECONDS_MAX)
        )
        and frame.get("on_disconnect", "continue") in {"continue", "cancel"}
    )


def kind_of(method: str, params: Any) -> tuple[str, int]:
    """Return what tells requests apart: the method, and a hash of the params.

    A handler that asked for a float gets 2.0 for a 2, which is the same here.
    """
    return method, hash(_hashable(params))


def _hashable(value: Any) -> Any:
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return tuple(sorted((name, _hashable(item)) for name, item in items))
    if isinstance(value, list):
        return tuple(map(_hashable, cast("list[Any]", value)))
    return value


def _ask(session: Session, connection: Connection, t: float, frame: Frame) -> None:
    session.positions += 1
    deaths = session.journal.deaths if session.journal is not None else 0
    kind = kind_of(frame["method"], frame.get("params", {}))
    copy = Copy(session.positions, connection.number, t, deaths, kind)
    session.asked.setdefault(frame["id"], []).append(copy)
    if frame.get("on_disconnect") == "cancel":
        session.tied.setdefault(frame["id"], connection.number)


def _acknowledge(connection: Connection, session: Session, seq: int) -> None:
    _, view = connection.of()
    if seq > (view.seq if connection.expected is None else connection.expected - 1):
        connection.nonsense += 1  # the server may not have sent it on this connection
    if not view.acked < seq <= view.seq:
        return
    for _ in range(seq - view.acked):
        request, attempt, index = view.unacked.popleft()
        if request is None:
            continue
        if index == END:
            session.acknowledge(request)
        elif attempt == request.seen_attempt:
            request.have_acked = max(request.have_acked, index + 1)
    view.acked = seq
