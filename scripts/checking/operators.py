"""What operators do: they end requests and sessions that are not theirs, and run some again."""

from .history import OperatorCancel, OperatorClose, OperatorRetry
from .state import Session, World


def cancel(world: World, event: OperatorCancel) -> None:
    """Take note that a request may end with `cancelled`."""
    session = _session(world, event.session)
    if session is not None:
        session.cancelled_by_operator.add(event.n)


def close(world: World, event: OperatorClose) -> None:
    """Take note that a session may be over, as after a `bye`."""
    session = _session(world, event.session)
    if session is not None:
        session.bye = True
        session.bye_cancels |= event.cancel


def retry(world: World, event: OperatorRetry) -> None:
    """Take note of a session that is closed from its beginning."""
    session = _session(world, event.session)
    if session is not None:
        session.bye = True


def _session(world: World, session_id: str) -> Session | None:
    return None if session_id in world.gone else world.session(session_id, None)
