"""Which request a line of the log belongs to: bound around handlers, so that theirs say it too.

One context variable with the request itself: binding costs a set, fields are made for lines.
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


handled: Final[ContextVar[LoggedRequest | None]] = ContextVar("handled", default=None)
"""The request whose handler runs in this context; tasks and threads it starts inherit it."""


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
    request = handled.get()
    if request is not None:
        fields = request_fields(
            request.session, request.n, request.method, request.subject, request.attempt
        )
        for name, value in fields.items():
            event.setdefault(name, value)
    return event
