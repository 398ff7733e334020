"""What can go wrong on the client's side.

ClientError
├── ConnectionFailed   there is no connection, and no use in trying again
├── RequestFailed      a request ended with an error
└── TooManyRequests    the client holds as many unfinished requests as it may
"""

from typing import Any, Final

SESSION_LOST: Final = "session_lost"
"""The server does not know the session any more: an accepted request may or may not have run."""
RESULTS_LOST: Final = "results_lost"
"""Results of a request are gone (expired, or taken by another program)."""
RESULTS_CHANGED: Final = "results_changed"
"""A replay gave other results than those already handed out."""


class ClientError(Exception):
    """The errors of this client."""


class ConnectionFailed(ClientError):
    """There is no connection, and no use in trying again.

    `code` is the close code or the HTTP status that says so, None without one.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class RequestFailed(ClientError):
    """Request `id` ended with `code` (SPEC.md, "Error codes", or one of the three above)."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        id: str,  # noqa: A002 - the wire's name
        details: Any = None,
        retryable: bool = False,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.id = id
        self.details = details
        self.retryable = retryable


class TooManyRequests(ClientError):
    """The client holds as many unfinished requests as it may: wait for some, or for `ready()`."""
