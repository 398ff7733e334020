"""One method: a handler with its options, as the worker and the session rules use it."""

import dis
import inspect
from collections.abc import Callable
from typing import Any, Final, Literal, get_args

from msgspec import Raw

from server.params import Params
from server.scopes import are_scopes

Kind = Literal["coroutine", "stream", "thread", "process"]
"""How a handler runs: awaited, iterated, or called in a thread or process of the pools."""
Replay = Literal["always", "if_not_started", "never"]

NAME_LENGTH_MAX: Final = 128
"""What a `request` frame allows for `method` (SPEC.md)."""
TIMEOUT_SECONDS_MAX: Final = 86_400


class Method:
    """A handler and its options; `Handlers.method` documents them. `timeout` is in seconds."""

    __slots__ = (
        "decode",
        "function",
        "kind",
        "live",
        "max_attempts",
        "name",
        "params",
        "quick",
        "replay",
        "scope",
        "timeout",
        "waits",
    )

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        *,
        timeout: float | None,
        live: bool,
        scope: str | None,
        replay: Replay,
        max_attempts: int,
        process: bool,
    ) -> None:
        _check_options(
            name=name,
            timeout=timeout,
            live=live,
            scope=scope,
            replay=replay,
            max_attempts=max_attempts,
            process=process,
        )
        self.name = name
        self.function = function
        self.kind: Kind = _kind(function, process)
        # Whether its first step may come before its start is noted (worker.py).
        self.quick = self.kind == "coroutine" and not live and replay == "always"
        self.waits = _may_wait(function)
        self.timeout = timeout
        self.live = live
        self.scope = scope
        self.replay: Replay = replay
        self.max_attempts = max_attempts
        self.params = Params(function)
        self.decode: Callable[[bytes | Raw], tuple[Any, ...]] = self.params.decode

    def describe(self) -> dict[str, Any]:
        """Return what a client may know of this method, as a JSON value.

        `summary` is the first line of the docstring, `params` a JSON Schema.
        """
        return {
            "name": self.name,
            "summary": (inspect.getdoc(self.function) or "").partition("\n")[0],
            "params": self.params.schema,
            "stream": self.kind == "stream",
            "live": self.live,
            "scope": self.scope,
            "timeout": self.timeout,
            "replay": self.replay,
            "max_attempts": self.max_attempts,
        }


def _may_wait(function: Callable[..., Any]) -> bool:
    """Tell whether the code of a coroutine function has a place to wait at."""
    return any(step.opname == "YIELD_VALUE" for step in dis.get_instructions(function))


def _check_options(
    *,
    name: object,
    timeout: object,
    live: object,
    scope: object,
    replay: object,
    max_attempts: object,
    process: object,
) -> None:
    if not (isinstance(name, str) and 1 <= len(name) <= NAME_LENGTH_MAX):
        raise ValueError(f"name is {name!r} but must be 1 to {NAME_LENGTH_MAX} characters")
    if timeout is not None and not (
        isinstance(timeout, int | float) and 0 < timeout <= TIMEOUT_SECONDS_MAX
    ):
        raise ValueError(
            f"timeout is {timeout!r} but must be seconds, above 0 and at most "
            f"{TIMEOUT_SECONDS_MAX}, or None for the server's own"
        )
    if scope is not None and not are_scopes([scope]):
        raise ValueError(f"scope is {scope!r} but must be one scope: no spaces, quotes or \\")
    if replay not in get_args(Replay):
        raise ValueError(f"replay is {replay!r} but must be one of {', '.join(get_args(Replay))}")
    if not (type(max_attempts) is int and max_attempts >= 1):
        raise ValueError(f"max_attempts is {max_attempts!r} but must be a number, 1 or more")
    for option, value in (("live", live), ("process", process)):
        if not isinstance(value, bool):
            raise ValueError(f"{option} is {value!r} but must be True or False")  # noqa: TRY004 - as above


def _kind(function: Callable[..., Any], process: bool) -> Kind:
    if not inspect.isroutine(function):
        raise TypeError("decorate a function, `def` or `async def`")
    kind: Kind = "thread"
    if inspect.isasyncgenfunction(function):
        kind = "stream"
    elif inspect.iscoroutinefunction(function):
        kind = "coroutine"
    elif inspect.isgeneratorfunction(function):
        raise TypeError("to yield results, make it an `async def`; a plain `def` returns one")
    if not process:
        return kind
    if kind != "thread" or not inspect.isfunction(function):
        raise TypeError("process=True is for a plain `def`: an `async def` runs in the event loop")
    if not function.__qualname__.isidentifier():
        raise TypeError(
            "process=True is for a function of a module: another process finds it by its name"
        )
    return "process"
