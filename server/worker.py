"""One worker coroutine per session: it takes requests from the session's queue, one at a time.

    while True: request = await queue.get(); run its handler; tell the session how it ended

The handler runs inside the worker's own task. To end it early (cancel, timeout, shutdown) the
task is cancelled; `_stop_code` tells why, and without one the worker itself is to end.
"""

import asyncio
from contextlib import aclosing
from typing import Any, Final

import structlog

from protocol.codec import encode
from protocol.codes import ErrorCode
from server.handlers import Handlers, InvalidParams, Method
from server.journal.committer import Committer
from server.journal.entries import DONE, encode_error
from server.journal.state import RequestState
from server.pools import Pools, WorkerDied
from server.request import Request, RequestError
from server.scopes import split_scopes
from server.session import ResultTooLarge, Session

STOP_AGAIN_SECONDS: Final = 1.0
"""A handler that goes on after it was cancelled is cancelled again this often."""

_log = structlog.get_logger(__name__)


class Runtime:
    """What the workers of a process share. `draining` lets no further request begin."""

    def __init__(
        self,
        handlers: Handlers,
        pools: Pools,
        committer: Committer,
        request_timeout_seconds: float,
    ) -> None:
        self.handlers = handlers
        self.pools = pools
        self.committer = committer
        self.request_timeout_seconds = request_timeout_seconds
        self.draining = False


class Worker:
    """Runs the requests of one session. The task starts with the first request."""

    __slots__ = (
        "_deadline",
        "_queue",
        "_runtime",
        "_stop_code",
        "_task",
        "_timer",
        "running",
        "session",
    )

    def __init__(self, runtime: Runtime, queue_size: int) -> None:
        self.session: Session
        self.running: RequestState | None = None
        self._runtime = runtime
        self._queue: asyncio.Queue[RequestState] = asyncio.Queue(queue_size)
        self._task: asyncio.Task[None] | None = None
        self._stop_code: ErrorCode | None = None
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def alive(self) -> bool:
        """Tell whether the worker's task goes on."""
        return self._task is not None and not self._task.done()

    def put(self, request: RequestState) -> None:
        """Queue `request`; the session's window keeps this within the queue's size."""
        self._queue.put_nowait(request)
        if not self.alive and not self._runtime.draining:
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(self._on_end)

    def _on_end(self, task: "asyncio.Task[None]") -> None:
        # Never by a handler's doing: a bug of ours. The request stays unfinished in the journal,
        # and the session goes on with its next one.
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.critical("worker_failed", session=self.session.state.id, exc_info=error)

    def stop(self, request: RequestState, code: ErrorCode) -> None:
        """End the running `request` with `code`, as soon as its handler lets go."""
        if self.running is request and self._task is not None and self._stop_code is None:
            self._stop_code = code
            self._task.cancel()

    def drain(self) -> "asyncio.Task[None] | None":
        """Begin no further request; return the task to wait for while one runs, else None."""
        if self.running is not None:
            return self._task
        if self._task is not None:
            self._task.cancel()
        return None

    def end(self) -> "asyncio.Task[None] | None":
        """Stop without ending the running request: it stays unfinished in the journal.

        Returns the task to wait for, if there is one.
        """
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        return self._task

    async def _run(self) -> None:
        queue = self._queue
        runtime = self._runtime
        while not runtime.draining:
            request = await queue.get()
            if request.outcome is not None:
                self.session.skip()
            else:
                self.running = request
                await self._execute(request)
                self.running = None

    async def _execute(self, request: RequestState) -> None:
        """Run one request to its end, whatever its handler does."""
        session = self.session
        try:
            outcome, error = await self._attempts(request)
        except RequestError as failure:
            outcome, error = failure.code, _handler_text(failure)
        except _Ended as ended:
            outcome, error = ended.code, encode_error(ended.code, str(ended), retryable=False)
        session.finish(request, outcome, error)

    async def _attempts(self, request: RequestState) -> tuple[str, bytes]:
        method = self._runtime.handlers.get(request.method)
        if method is None:
            raise _Ended(ErrorCode.UNKNOWN_METHOD, f"no method {request.method!r} any more")
        try:
            arguments = method.decode(request.params)
        except InvalidParams as error:
            raise _Ended(ErrorCode.INVALID_PARAMS, str(error)) from None
        while True:
            self._check_attempt(request, method)
            try:
                await self._attempt(request, method, arguments)
            except WorkerDied:
                _log.warning("process_died", **_context(request, self.session))
            else:
                return DONE, b""

    @staticmethod
    def _check_attempt(request: RequestState, method: Method) -> None:
        if request.attempt > 0 and method.replay != "always":
            raise _Ended(
                ErrorCode.INTERRUPTED,
                "a crash hit this request, and its method must not run twice",
            )
        if request.attempt >= method.max_attempts:
            raise _Ended(
                ErrorCode.HANDLER_ERROR,
                f"given up after {request.attempt} attempts that ended with a crash",
            )

    async def _attempt(
        self, request: RequestState, method: Method, arguments: tuple[Any, ...]
    ) -> None:
        self.session.start(request)
        self._arm(request, method)
        try:
            if request.attempt > 1 or method.replay != "always":
                # The count must survive a crash of this very attempt.
                await self._runtime.committer.durable()
            await self._call(request, method, arguments)
        except asyncio.CancelledError:
            if not _being_cancelled():
                _log.exception("handler_failed", **_context(request, self.session))
                raise _Ended(ErrorCode.HANDLER_ERROR, "the handler failed") from None
            if self._stop_code is None:
                raise  # the worker itself is to end
        except (RequestError, WorkerDied, _Ended):
            raise
        except ResultTooLarge:
            raise _Ended(
                ErrorCode.RESULT_TOO_LARGE,
                "the session's unacknowledged results would exceed max_result_bytes: "
                "acknowledge results sooner, or yield less",
            ) from None
        except (Exception, SystemExit):
            _log.exception("handler_failed", **_context(request, self.session))
            raise _Ended(ErrorCode.HANDLER_ERROR, "the handler failed") from None
        finally:
            code, self._stop_code = self._stop_code, None
            self._deadline = 0.0
            if code is not None:
                _uncancel()
        if code is not None:
            raise _Ended(code, _STOP_TEXT[code])

    async def _call(
        self, request: RequestState, method: Method, arguments: tuple[Any, ...]
    ) -> None:
        call = Request(
            session=self.session.state.id,
            n=request.n,
            id=request.id,
            method=request.method,
            subject=request.subject,
            scopes=split_scopes(request.scope),
            attempt=request.attempt,
        )
        match method.kind:
            case "coroutine":
                await self._emit(request, method, await method.function(call, *arguments))
            case "stream":
                async with aclosing(method.function(call, *arguments)) as items:
                    async for item in items:
                        await self._emit(request, method, item)
            case "thread":
                value = await self._runtime.pools.run_thread(method.function, call, *arguments)
                await self._emit(request, method, value)
            case "process":
                value = await self._runtime.pools.run_process(method.function, call, *arguments)
                await self._emit(request, method, value)

    async def _emit(self, request: RequestState, method: Method, item: object) -> None:
        try:
            data = encode(item)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            _log.warning("result_not_json", error=str(error), **_context(request, self.session))
            raise _Ended(
                ErrorCode.HANDLER_ERROR, f"the handler gave what JSON cannot hold: {error}"
            ) from None
        if method.live:
            self.session.live_result(request, data)
        else:
            self.session.result(request, data)
        # A slow client holds its handler back; one that is gone does not.
        while (out := self.session.out) is not None and out.full:
            await out.room()

    # Deadlines: one timer per worker that is armed anew only when it fires too early, so that
    # a short request costs no timer of its own.

    def _arm(self, request: RequestState, method: Method) -> None:
        limit = method.timeout or self._runtime.request_timeout_seconds
        seconds = limit if request.timeout is None else min(request.timeout, limit)
        loop = asyncio.get_running_loop()
        self._deadline = loop.time() + seconds
        if self._timer is None or self._timer.when() > self._deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_at(self._deadline, self._expired)

    def _expired(self) -> None:
        self._timer = None
        if self._deadline == 0.0 or self.running is None:
            return
        loop = asyncio.get_running_loop()
        if loop.time() >= self._deadline:
            if self._stop_code is None:
                self.stop(self.running, ErrorCode.TIMEOUT)
            elif self._task is not None:
                self._task.cancel()  # the handler swallowed the last one
            self._deadline = loop.time() + STOP_AGAIN_SECONDS
        self._timer = loop.call_at(self._deadline, self._expired)


class _Ended(Exception):
    """How a request ends that gave no value of its own."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


_STOP_TEXT = {
    ErrorCode.CANCELLED: "cancelled by the client",
    ErrorCode.TIMEOUT: "the handler did not end in time",
}


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _uncancel() -> None:
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


def _handler_text(failure: RequestError) -> bytes:
    try:
        return encode_error(failure.code, failure.message, failure.retryable, failure.details)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        _log.warning("error_details_not_json", code=failure.code, error=str(error))
        return encode_error(failure.code, failure.message, failure.retryable)


def _context(request: RequestState, session: Session) -> dict[str, Any]:
    return {
        "session": session.state.id,
        "n": request.n,
        "method": request.method,
        "subject": request.subject,
        "attempt": request.attempt,
    }
