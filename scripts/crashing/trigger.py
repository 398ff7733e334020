"""SIGKILL in the middle of things: a server that ends itself at a chosen moment.

The server knows nothing of this. The handlers' module, which the server imports before it opens
its journal, wraps one function of it when CRASHTEST_TRIGGER is set.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, Literal, NamedTuple

from scripts.checking.history import Writer
from server.connection import Connection
from server.session import Session

Point = Literal["append", "committed", "send", "seal", "trim", "forget", "project"]
"""A commit's write; a session hears of its commit; a message goes out; keeping the journal."""
Phase = Literal["before", "during", "after"]


class Trigger(NamedTuple):
    """Die at the `call`-th call of `point`; `during`: that many `seconds` after it began."""

    point: Point
    phase: Phase
    call: int
    seconds: float

    def text(self) -> str:
        """Return the value for the environment."""
        return f"{self.point} {self.phase} {self.call} {self.seconds:.6f}"

    @classmethod
    def of(cls, text: str) -> "Trigger":
        """Read what `text` has written."""
        point, phase, call, seconds = text.split()
        return cls(point, phase, int(call), float(seconds))  # type: ignore[arg-type]


def install(trigger: Trigger, journal: str, history: Writer, server: str) -> None:
    """Wrap the function that `trigger` names, for a server on `journal` (a URL)."""

    def die() -> None:
        history.write("kill", server=server)
        os.kill(os.getpid(), signal.SIGKILL)

    owner = _owner(trigger.point, journal)
    setattr(owner, trigger.point, _wrapped(getattr(owner, trigger.point), trigger, die))


def _owner(point: Point, journal: str) -> Any:
    if point == "committed":
        return Session
    if point == "send":
        return Connection
    # Imported here, as the other store's library need not be there.
    if journal.startswith("sqlite"):
        from server.journal.sqlite_log import SqliteLog as Log  # noqa: PLC0415
        from server.journal.sqlite_tables import SqliteHistory as History  # noqa: PLC0415
    else:
        from server.journal.mongodb_log import MongodbLog as Log  # noqa: PLC0415
        from server.journal.mongodb_tables import MongodbHistory as History  # noqa: PLC0415
    return History if point == "project" else Log


def _wrapped(
    function: Callable[..., Any], trigger: Trigger, die: Callable[[], None]
) -> Callable[..., Any]:
    calls = 0

    def begin() -> bool:
        """Count a call; tell whether it is the one."""
        nonlocal calls
        calls += 1
        if calls != trigger.call:
            return False
        if trigger.phase == "before":
            die()
        if trigger.phase == "during":
            threading.Thread(target=later, daemon=True).start()
        return trigger.phase == "after"

    def later() -> None:
        time.sleep(trigger.seconds)
        die()

    if iscoroutinefunction(function):

        @wraps(function)
        async def run(*args: Any, **kwargs: Any) -> Any:
            last = begin()
            value = await function(*args, **kwargs)
            if last:
                die()
            return value
    else:

        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            last = begin()
            value = function(*args, **kwargs)
            if last:
                die()
            return value

    return run
