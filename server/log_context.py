"""Which request a line of the log belongs to: bound around handlers, so that theirs say it too.

    worker: handling = begin_handling(request)  (the handler runs)  begin_handling()
    -> the handler, its tasks and threads inherit the context -> their lines say the request

A context variable costs as much as a fortieth of a quick request. So handlers that have no place
to wait at share one value, whose `request` is there while they run and gone before anything else
does; what a task says that such a handler leaves behind is said of no request.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final, Protocol

from structlog.typing import EventDict


class LoggedRequest(Protocol):
    """What a line says of a request (request.Request)."""

    @property
    def session(self) -> str: ...
    @property
    def n(self) -> int: ...
    @property
    def method(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def attempt(self) -> int: ...


class Handling:
    """What is handled in a context."""

    __slots__ = ("request",)

    def __init__(self, request: LoggedRequest | None) -> None:
        self.request = request


_handling: Final[ContextVar[Handling | None]] = ContextVar("handling", default=None)


def begin_handling(request: LoggedRequest | None = None) -> Handling:
    """Say the lines of this context, and of those made from it from now on, of `request`."""
    handling = Handling(request)
    _handling.set(handling)
    return handling


def handled() -> LoggedRequest | None:
    """Return the request that is handled in this context."""
    handling = _handling.get()
    return None if handling is None else handling.request


def request_fields(
    session: str, n: int, method: str, subject: str, attempt: int
) -> Mapping[str, Any]:
    """Return what every line about a request carries; `request` is its idempotency key."""
    return {
        "request": f"{session}:{n}",
        "session": session,
        "n": n,
        "method": method,
        "subject": subject,
        "attempt": attempt,
    }


def add_request(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Be a processor of structlog: add the request that is being handled, if one is."""
    request = handled()
    if request is not None:
        fields = request_fields(
            request.session, request.n, request.method, request.subject, request.attempt
        )
        for name, value in fields.items():
            event.setdefault(name, value)
    return event
