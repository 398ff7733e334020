"""The registry of handlers: what clients may call, and what each call needs.

handlers = Handlers()

@handlers.method("words")
async def words(request: Request, text: str, limit: int = 10):
    for word in text.split()[:limit]:
        yield word
"""

import difflib
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

from msgspec import Raw

from protocol.codes import ErrorCode
from server.methods import Method, Replay
from server.params import InvalidParams
from server.scopes import split_scopes
from server.session import Refused

__all__ = ["Handlers", "InvalidParams", "Method"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

NAMES_COMPARED_MAX: Final = 50
"""With how many an unknown name is compared: each takes a microsecond or two."""
NAMES_SHOWN_MAX: Final = 20
"""How many methods the answer to a call of an unknown one names."""


class Handlers:
    """Methods by name, in the order they were registered."""

    def __init__(self) -> None:
        self._methods: dict[str, Method] = {}

    def method(
        self,
        name: str | None = None,
        *,
        timeout: float | None = None,
        live: bool = False,
        scope: str | None = None,
        replay: Replay = "always",
        max_attempts: int = 5,
        process: bool = False,
    ) -> Callable[[_Function], _Function]:
        """Make the decorated function callable by clients, under `name` or its own name.

        Its first parameter is the Request. Clients give the others as `params`, by name; they are
        checked against the annotations, and may have defaults. What it returns is the result;
        an async generator gives one result per `yield`. A plain `def` runs in a thread.

        timeout: seconds it may run; None leaves it to the server's request_timeout.
        live: results are sent but not kept, so a client that was away has missed them.
        scope: the scope a token must carry.
        replay: what happens to an unfinished request after a crash of the server. `always`: it
            runs again. `if_not_started`: it runs unless it had begun. `never`: it does not run.
            What does not run ends with the error `interrupted`. The latter two cost a journal
            commit before each run.
        max_attempts: so often it is run when it takes the process down each time.
        process: run it (a plain `def` of a module) in another process, for work on the CPU.

        Raises TypeError or ValueError, saying what to change, for what cannot be a method.
        """
        if callable(name):
            raise TypeError(f"write @handlers.method() above {_label(name)}: with parentheses")

        def register(function: _Function) -> _Function:
            try:
                self._add(
                    Method(
                        name if name is not None else getattr(function, "__name__", ""),
                        function,
                        timeout=timeout,
                        live=live,
                        scope=scope,
                        replay=replay,
                        max_attempts=max_attempts,
                        process=process,
                    )
                )
            except TypeError as error:
                raise TypeError(f"handler {_label(function)}: {error}") from error
            except ValueError as error:
                raise ValueError(f"handler {_label(function)}: {error}") from error
            return function

        return register

    def include(self, other: "Handlers") -> None:
        """Add all methods of `other`. Raises ValueError, and adds none, if a name is taken."""
        for method in other:
            self._check_free(method)
        for method in other:
            self._add(method)

    def get(self, name: str) -> Method | None:
        """Return the method of that name, or None."""
        return self._methods.get(name)

    def names(self) -> list[str]:
        """Return the names of all methods."""
        return list(self._methods)

    def __iter__(self) -> Iterator[Method]:
        return iter(self._methods.values())

    def check(self, method: str, params: Raw | bytes, scope: str) -> tuple[Method, tuple[Any, ...]]:
        """Return the method and its arguments after the request; `scope` is what its token has.

        Raises Refused (unknown_method, forbidden, invalid_params) for what must not run.
        """
        found = self._methods.get(method)
        if found is None:
            raise Refused(ErrorCode.UNKNOWN_METHOD, self._unknown(method))
        if found.scope is not None and found.scope not in split_scopes(scope):
            raise Refused(
                ErrorCode.FORBIDDEN, f"method {method!r} needs a token with scope {found.scope!r}"
            )
        try:
            return found, found.decode(params)
        except InvalidParams as error:
            raise Refused(ErrorCode.INVALID_PARAMS, f"method {method!r}: {error}") from None

    def _add(self, method: Method) -> None:
        self._check_free(method)
        self._methods[method.name] = method

    def _check_free(self, method: Method) -> None:
        taken = self._methods.get(method.name)
        if taken is not None:
            raise ValueError(
                f"the name {method.name!r} is taken by {_label(taken.function)}: give another name"
            )

    def _unknown(self, method: str) -> str:
        names = self.names()
        if not names:
            return f"no method {method!r}: this server has no methods"
        close = difflib.get_close_matches(method, names[:NAMES_COMPARED_MAX], n=1)
        hint = f", did you mean {close[0]!r}?" if close else ":"
        more = f" and {len(names) - NAMES_SHOWN_MAX} more" if len(names) > NAMES_SHOWN_MAX else ""
        return f"no method {method!r}{hint} there are {', '.join(names[:NAMES_SHOWN_MAX])}{more}"


def _label(function: Any) -> str:
    module = getattr(function, "__module__", None)
    name = getattr(function, "__qualname__", None)
    return f"{module}.{name}" if name else repr(function)
