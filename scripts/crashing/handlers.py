"""The methods of the server under test: short and long ones that note what they do.

Each notes its start, what it gives, and its end, in a file that outlives the process. Importing
this module also prepares the server's death, when CRASHTEST_TRIGGER asks for one, and lets SIGUSR1
write the stack of every thread into the server's log.
"""

import asyncio
import faulthandler
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from scripts.checking.history import Writer, shortened
from server import Handlers, Request, RequestError
from server.methods import Replay

from .names import HISTORY, SERVER, TRIGGER
from .trigger import Trigger, install

REPLAY: Final[dict[str, Replay]] = {"once": "never", "unstarted": "if_not_started"}
ATTEMPTS_MAX: Final = 1_000_000
"""Most methods are to be run again, however often they are hit."""
FEW_ATTEMPTS: Final = 3
"""After so many the method `limited` is given up."""

KEEP_SECONDS: Final = 0.05
"""How long the server waits between two looks after its journal."""

handlers = Handlers()

_server: Final = os.environ[SERVER]
_history: Final = Writer(Path(os.environ[HISTORY]), _server)


class Noted:
    """One run of a handler, from its start to its end, as history."""

    def __init__(self, request: Request, **params: Any) -> None:
        self._run = {"server": _server, "pid": os.getpid(), "session": request.session}
        self._run |= {"n": request.n, "attempt": request.attempt}
        self._index = 0
        self._request = request
        self._params = params

    def __enter__(self) -> Self:
        request = self._request
        _history.write(
            "start",
            **self._run,
            id=request.id,
            method=request.method,
            params=shortened(self._params),
            live=request.method == "live",
            replay=REPLAY.get(request.method, "always"),
        )
        return self

    def emit(self, size: int = 0) -> dict[str, Any]:
        """Return the next item, of about `size` bytes, once it is noted."""
        request = self._request
        item = {"id": request.id, "attempt": request.attempt, "index": self._index}
        if size:
            item["filler"] = f"{self._index:x}" * size
        _history.write("emit", **self._run, index=self._index, data=shortened(item))
        self._index += 1
        return item

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        how = "raised"
        if kind is None:
            how = "returned"
        elif issubclass(kind, asyncio.CancelledError | GeneratorExit):
            how = "cancelled"
        self.end(how)

    def end(self, how: str) -> None:
        """Note the end."""
        _history.write("end", **self._run, how=how)


async def _wait(ms: float) -> None:
    if ms:
        await asyncio.sleep(ms / 1000)


@handlers.method(max_attempts=ATTEMPTS_MAX)
async def quick(request: Request, tag: int) -> Any:
    """Ends in its first step."""
    with Noted(request, tag=tag) as noted:
        return noted.emit()


@handlers.method(max_attempts=ATTEMPTS_MAX)
async def pause(request: Request, tag: int, ms: float) -> Any:
    """Takes a while; may be cancelled or run out of time."""
    with Noted(request, tag=tag, ms=ms) as noted:
        await _wait(ms)
        return noted.emit()


@handlers.method(max_attempts=ATTEMPTS_MAX)
async def stream(
    request: Request, tag: int, ms: float, count: int, size: int
) -> AsyncIterator[Any]:
    """Gives `count` items of about `size` bytes, one every `ms`."""
    with Noted(request, tag=tag, ms=ms, count=count, size=size) as noted:
        for _ in range(count):
            yield noted.emit(size)
            await _wait(ms)


@handlers.method(max_attempts=ATTEMPTS_MAX, live=True)
async def live(request: Request, tag: int, ms: float, count: int, size: int) -> AsyncIterator[Any]:
    """As `stream`; the items are not kept for clients that are away."""
    with Noted(request, tag=tag, ms=ms, count=count, size=size) as noted:
        for _ in range(count):
            yield noted.emit(size)
            await _wait(ms)


@handlers.method(max_attempts=ATTEMPTS_MAX)
def thread(request: Request, tag: int, ms: float) -> Any:
    """Runs in a thread, which nobody can end."""
    with Noted(request, tag=tag, ms=ms) as noted:
        time.sleep(ms / 1000)
        return noted.emit()


@handlers.method(max_attempts=ATTEMPTS_MAX, process=True)
def process(request: Request, tag: int, ms: float, die: bool) -> Any:
    """Runs in a process of its own; with `die`, its first attempt takes that process down."""
    with Noted(request, tag=tag, ms=ms, die=die) as noted:
        time.sleep(ms / 1000)
        if die and request.attempt == 1:
            noted.end("raised")
            os.kill(os.getpid(), signal.SIGKILL)
        return noted.emit()


@handlers.method(replay=REPLAY["once"])
async def once(request: Request, tag: int, ms: float) -> Any:
    """Must not run again after a crash."""
    with Noted(request, tag=tag, ms=ms) as noted:
        await _wait(ms)
        return noted.emit()


@handlers.method(replay=REPLAY["unstarted"])
async def unstarted(request: Request, tag: int, ms: float) -> Any:
    """Must not run again after a crash when it had begun."""
    with Noted(request, tag=tag, ms=ms) as noted:
        await _wait(ms)
        return noted.emit()


@handlers.method(max_attempts=FEW_ATTEMPTS)
async def limited(request: Request, tag: int, ms: float) -> Any:
    """Is given up when crashes hit it too often."""
    with Noted(request, tag=tag, ms=ms) as noted:
        await _wait(ms)
        return noted.emit()


@handlers.method(max_attempts=ATTEMPTS_MAX)
async def refuse(request: Request, tag: int, ms: float) -> Any:
    """Ends with an error of its own."""
    with Noted(request, tag=tag, ms=ms):
        await _wait(ms)
        raise RequestError("sold_out", "there is none left", {"tag": tag})


@handlers.method(max_attempts=ATTEMPTS_MAX)
async def broken(request: Request, tag: int, ms: float) -> Any:
    """Fails."""
    with Noted(request, tag=tag, ms=ms):
        await _wait(ms)
        raise ValueError("broken, as it is meant to be")


faulthandler.register(signal.SIGUSR1)
if "server.app" in sys.modules:  # the server, not a process of its pool
    # A server's life is short here, and a kill is to find it at its request log and checkpoints.
    sys.modules["server.app"].PROJECT_SECONDS = KEEP_SECONDS  # type: ignore[attr-defined]
if TRIGGER in os.environ:
    install(Trigger.of(os.environ[TRIGGER]), os.environ["QUEUESYSTEM_JOURNAL"], _history, _server)
