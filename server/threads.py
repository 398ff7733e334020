"""A pool of threads whose calls, once begun, are always awaited to their end.

    free slot -> (cancelled here: never begun) -> thread calls the function
    -> (cancelled here: remembered) -> the function has ended -> result, error or CancelledError

Not concurrent.futures.ThreadPoolExecutor: its threads keep the interpreter from exiting, so one
endless handler would keep a stopped server alive.
"""

import asyncio
import threading
from collections.abc import Callable
from contextvars import copy_context
from queue import SimpleQueue
from typing import Any, Final

import structlog

START_SECONDS: Final = 30.0
"""A call waits so long for a system that gives not one thread; then it fails."""
START_AGAIN_SECONDS: Final = 0.2

_log = structlog.get_logger(__name__)


class PoolsClosed(Exception):
    """The server stops: the call was not made, or its end was not waited for."""


_Call = tuple["asyncio.Future[Any]", Callable[..., Any], tuple[Any, ...]]


class Threads:
    """At most `size` daemon threads, started as they are needed; further calls wait in order.

    `jobs` is how many calls run or wait.
    """

    def __init__(self, size: int, name: str) -> None:
        self.jobs = 0
        self._name = name
        self._slots = asyncio.Semaphore(size)
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._running: set[asyncio.Future[Any]] = set()
        self._closed = False

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call the function in a thread and return what it returns or raise what it raises.

        A call cancelled before it begins is never made. One cancelled later is waited for, then
        CancelledError is raised whatever came of it. An exception that is none of `Exception`, or
        is StopIteration, comes as RuntimeError: it would mean something else to the event loop.
        Raises PoolsClosed, and RuntimeError when no thread can be started for START_SECONDS.
        """
        self.jobs += 1
        try:
            async with self._slots:
                return await self._run(function, arguments)
        finally:
            self.jobs -= 1

    async def _run(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if len(self._running) >= len(self._threads):
            await self._have_a_thread()
        if self._closed:
            raise PoolsClosed("the server stops: no further call is made")
        future = asyncio.get_running_loop().create_future()
        self._running.add(future)
        try:
            # With the context of who calls: its log lines say for which request.
            self._calls.put((future, copy_context().run, (function, *arguments)))
            return await _to_the_end(future)
        finally:
            self._running.discard(future)

    async def close(self, grace_seconds: float) -> None:
        """Make no further call, and wait that long for those that run; then give those up.

        The thread of a call that was given up goes on until its function ends or the process does.
        """
        self._closed = True
        if self._running:
            await asyncio.wait(self._running, timeout=grace_seconds)
        for future in self._running:
            if not future.done():
                future.set_exception(PoolsClosed("the server stopped before the call ended"))
        for _ in self._threads:
            self._calls.put(None)

    async def _have_a_thread(self) -> None:
        """Start a thread; where the system gives none, one that is there will do."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + START_SECONDS
        while not self._closed:
            try:
                self._start_thread()
            except RuntimeError as error:  # too many threads, or too little memory
                _log.warning("thread_not_started", error=str(error))
                if self._threads:
                    return
                if loop.time() >= give_up_at:
                    raise
                await asyncio.sleep(START_AGAIN_SECONDS)
            else:
                return

    def _start_thread(self) -> None:
        thread = threading.Thread(
            target=_work,
            args=(self._calls,),
            name=f"{self._name}-{len(self._threads)}",
            daemon=True,
        )
        thread.start()
        self._threads.append(thread)


async def _to_the_end(future: "asyncio.Future[Any]") -> Any:
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from future.exception()
    return future.result()


def _work(calls: "SimpleQueue[_Call | None]") -> None:
    while (call := calls.get()) is not None:
        future, function, arguments = call
        result, error = None, None
        try:
            result = function(*arguments)
        except BaseException as raised:
            error = ordinary(raised)
        try:
            future.get_loop().call_soon_threadsafe(_settle, future, result, error)
        except RuntimeError:
            return  # the loop was closed: nobody waits any more
        # Hold on to nothing while waiting for the next call.
        del call, future, function, arguments, result, error


def _settle(future: "asyncio.Future[Any]", result: object, error: BaseException | None) -> None:
    if future.done():
        return  # given up by close()
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def ordinary(error: BaseException) -> Exception:
    """Return `error`, or a RuntimeError in its place that means nothing to the event loop."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError(f"the function raised {error!r}")
    wrapped.__cause__ = error
    return wrapped
