"""What a handler is given (`Request`) and how it ends a request with an error (`RequestError`)."""

import re
from typing import Any, Final

from msgspec import Struct

from server.journal.entries import DONE

_CODE: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")


class Request(Struct, frozen=True):
    """The request a handler works on; its params come as the handler's other arguments.

    `n` counts the requests of `session` from 1. `id` was chosen by the client. `subject` and
    `scopes` are those of the token it was accepted under, also when it runs again after a crash:
    then `attempt` is 2 or more.
    """

    session: str
    n: int
    id: str
    method: str
    subject: str
    scopes: frozenset[str]
    attempt: int

    @property
    def idempotency_key(self) -> str:
        """A text that is the same in every attempt of this request and in no other request."""
        return f"{self.session}:{self.n}"


class RequestError(Exception):
    """Raise it in a handler to end the request with an error of the handler's own.

    `code` is for programs: a small letter, then at most 63 more of a-z, 0-9 and _ ("done" is
    taken: it means success). `message` is for people. `details` is any JSON value. `retryable`
    tells the client that the same request, sent again under a new id, may succeed.
    """

    def __init__(
        self, code: str, message: str, details: Any = None, *, retryable: bool = False
    ) -> None:
        if not _CODE.fullmatch(code) or code == DONE:
            raise ValueError(
                f"{code!r} cannot be the code of a RequestError: use at most 64 of a-z, 0-9 and _, "
                f"begin with a letter, and do not use {DONE!r}"
            )
        super().__init__(code, message, details)
        self.code = code
        self.message = message
        self.details = details
        self.retryable = retryable

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    def __reduce__(self) -> tuple[Any, ...]:
        # Not by calling the class again: a subclass may take other arguments.
        return _new, (type(self), self.args), self.__dict__


def _new(kind: type[RequestError], arguments: tuple[Any, ...]) -> RequestError:
    return kind.__new__(kind, *arguments)
