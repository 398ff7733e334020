"""One worker coroutine per session: it takes requests from the session's queue, one at a time.

    while True: for each request of the next batch: run its handler; tell the session how it ended

A batch is what one commit of the journal made durable: nothing is waited for between its requests.
Most handlers never wait, or not always: the first step of a coroutine is made at once, and what
has ended then needs no deadline, no start in the journal and no turn of the loop.

The handler runs inside the worker's own task. To end it early (cancel, timeout, shutdown) the
task is cancelled; `_stop_code` tells why, and without one the worker itself is to end.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Coroutine, Generator, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, Final

import structlog

from protocol.codec import encode
from protocol.codes import ErrorCode
from server.handlers import Handlers, InvalidParams, Method
from server.histogram import Histogram
from server.journal.committer import Committer
from server.journal.entries import DONE, encode_error
from server.journal.state import RequestState
from server.log_context import Handling, begin_handling, request_fields
from server.pools import Pools, PoolsClosed, WorkerDied
from server.request import Request, RequestError
from server.scopes import split_scopes
from server.session import EVENT_BYTES, TOO_LARGE, ResultTooLarge, Session

ANSWERS_BYTES_MAX: Final = 64 * 1024
"""What quick handlers returned is handed over at this size, if not before."""
TURN_BYTES: Final = 64 * 1024
"""A stream nobody waits for gives others a turn after so many bytes; its handler need not wait for
anything itself."""
STOP_AGAIN_SECONDS: Final = 1.0
"""A handler that goes on after it was cancelled is cancelled again this often."""

_log = structlog.get_logger(__name__)


HANDLER_SECONDS: Final = (
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip
"""Bounds of the time a handler runs."""


class Runtime:
    """What the workers of a process share. `draining` lets no further request begin.

    `running` is how many requests run now, `handler_seconds` how long they ran, by method: each
    attempt counts. Where handlers end in their first step the clock is read once for all those of
    the same method that follow each other, and each counts as their mean. `verbose`: there are
    debug lines about every request, and no short cuts.
    """

    def __init__(
        self,
        handlers: Handlers,
        pools: Pools,
        committer: Committer,
        request_timeout_seconds: float,
        *,
        verbose: bool = False,
    ) -> None:
        self.handlers = handlers
        self.pools = pools
        self.committer = committer
        self.request_timeout_seconds = request_timeout_seconds
        self.verbose = verbose
        self.loop = asyncio.get_running_loop()
        self.draining = False
        self.running = 0
        self.handler_seconds = {name: Histogram(HANDLER_SECONDS) for name in handlers.names()}


class Worker:
    """Runs the requests of one session. The task starts with the first request."""

    __slots__ = (
        "_alone",
        "_answers",
        "_answers_bytes",
        "_batch",
        "_deadline",
        "_handling",
        "_lap_at",
        "_lap_method",
        "_lap_skipped",
        "_queue",
        "_runtime",
        "_stop_code",
        "_stop_message",
        "_task",
        "_timer",
        "_timer_at",
        "running",
        "session",
    )

    def __init__(self, runtime: Runtime, queue_size: int) -> None:
        self.session: Session
        self.running: RequestState | None = None
        self._runtime = runtime
        self._queue: asyncio.Queue[Sequence[RequestState]] = asyncio.Queue(queue_size)
        self._batch: deque[RequestState] = deque()
        # What log lines are said of (log_context.py); `_alone` when it is of one request only.
        self._handling = Handling(None)
        self._alone = False
        # What quick handlers returned, not handed over yet.
        self._answers: list[tuple[RequestState, bytes]] = []
        self._answers_bytes = 0
        # The method of those that ran last, since when they do, and the answers before theirs.
        self._lap_method: Method | None = None
        self._lap_at = 0.0
        self._lap_skipped = 0
        self._task: asyncio.Task[None] | None = None
        self._stop_code: ErrorCode | None = None
        self._stop_message = ""
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    @property
    def alive(self) -> bool:
        """Tell whether the worker's task goes on."""
        return self._task is not None and not self._task.done()

    def put(self, batch: Sequence[RequestState]) -> None:
        """Queue `batch`; the session's window keeps this within the queue's size."""
        self._queue.put_nowait(batch)
        if self._runtime.verbose:
            for request in batch:
                _log.debug("request_accepted", **_context(request, self.session))
        if not self.alive and not self._runtime.draining:
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(self._on_end)

    def _on_end(self, task: "asyncio.Task[None]") -> None:
        if self._task is task:
            self._task = None  # its exception refers back to this worker
        # Never by a handler's doing: a bug of ours. The request stays unfinished in the journal,
        # and the session goes on with its next one.
        if not task.cancelled() and (error := task.exception()) is not None:
            fields: dict[str, Any] = {"session": self.session.state.id}
            if self.running is not None:
                fields |= _context(self.running, self.session)
            _log.critical("worker_failed", exc_info=error, **fields)

    def stop(self, request: RequestState, code: ErrorCode, message: str) -> None:
        """End the running `request` with `code` and `message`, as soon as its handler lets go."""
        if self.running is request and self._task is not None and self._stop_code is None:
            self._stop_code = code
            self._stop_message = message
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
        batch = self._batch
        runtime = self._runtime
        verbose = runtime.verbose
        self._handling = begin_handling()
        while not runtime.draining:
            if not batch:
                batch.extend(await self._queue.get())
                continue  # draining may have begun
            request = batch.popleft()
            if request.prepared is None and request.outcome is None and not request.attempt:
                self._prepare_late(request)
            if request.outcome is not None:
                self.session.skip()
            elif verbose or request.prepared is None or not request.prepared[0].quick:
                await self._run_one(request, None)
            elif (begun := self._begin(request)) is not None:
                await self._run_one(request, begun)
            elif batch and self._answers_bytes < ANSWERS_BYTES_MAX:
                continue
            if self._alone:
                self._begin_handling(None, alone=False)
            else:
                self._handling.request = None
            self._flush()
            # A slow client holds its handlers back; one that is gone does not.
            while (out := self.session.out) is not None and out.full:
                await out.room()

    # Handlers that end at once

    def _begin(self, request: RequestState) -> "_Begun | None":
        """Run a quick method up to where it first waits; None when it has ended."""
        method, arguments = request.prepared
        if method is not self._lap_method:
            self._lap(method)
        call = self._call(request, 1)
        if method.waits or self._alone:
            self._begin_handling(call, alone=method.waits)
        else:
            self._handling.request = call
        handler = method.function(call, *arguments)
        try:
            waited_for = handler.send(None)
        except StopIteration as returned:
            try:
                data = encode(returned.value)
            except _NOT_JSON as error:
                self._fail(request, self._not_json(request, error))
            else:
                self._answers.append((request, data))
                self._answers_bytes += len(data)
        except BaseException as failure:
            self._fail(request, failure)
        else:
            return _Begun(handler, waited_for, self._lap(None, going_on=1))
        return None

    def _begin_handling(self, call: Request | None, *, alone: bool) -> None:
        """Say what is logged from now on of `call`; `alone` when others may log meanwhile."""
        if not self._alone:
            self._handling.request = None  # what was left behind is of no request
        self._handling = begin_handling(call)
        self._alone = alone

    def _lap(self, method: Method | None, *, failed: int = 0, going_on: int = 0) -> float:
        """Note how long requests took that ran since the last lap; those of `method` come next.

        They are those that were answered, that `failed`, and that are `going_on`, which is not
        noted. Returns the mean of their seconds.
        """
        now = time.perf_counter()
        mean = 0.0
        if self._lap_method is not None:
            ended = len(self._answers) - self._lap_skipped + failed
            mean = (now - self._lap_at) / (ended + going_on or 1)
            self._runtime.handler_seconds[self._lap_method.name].observe(mean, ended)
        self._lap_method = method
        self._lap_at = now
        self._lap_skipped = len(self._answers)
        return mean

    def _fail(self, request: RequestState, failure: BaseException) -> None:
        """End a request whose handler failed in its first step."""
        self._lap(None, failed=1)
        self._flush()
        self.session.start(request)
        self.session.finish(request, *self._judge(request, failure))

    def _flush(self) -> None:
        """Hand over what quick handlers have returned."""
        if self._lap_method is not None:
            self._lap(None)
        if self._answers:
            self.session.answer(self._answers)
            self._answers = []
            self._answers_bytes = 0

    # Any handler

    async def _run_one(self, request: RequestState, begun: "_Begun | None") -> None:
        """Run one request to its end, whatever its handler does."""
        self._flush()
        self.running = request
        self._runtime.running += 1
        try:
            while not await self._execute(request, begun):
                pass  # its process died: once more
        finally:
            self._runtime.running -= 1
        self.running = None

    async def _execute(self, request: RequestState, begun: "_Begun | None") -> bool:
        """Run one attempt; False if there is to be another."""
        session = self.session
        outcome, error = DONE, b""
        began: float | None = None
        try:
            method, arguments = request.prepared or self._prepare(request)
            if request.attempt > 0:
                self._check_attempt(request, method)
            session.start(request)
            if request.attempt > 1:
                _log.info("request_replayed", **_context(request, session))
            elif self._runtime.verbose:
                _log.debug("request_started", **_context(request, session))
            if request.attempt > 1 or method.replay != "always":
                # The count must survive a crash of this very attempt.
                await self._runtime.committer.durable()
            self._arm(request, method)
            began = time.perf_counter()
            if begun is not None:
                began -= begun.seconds
                self._emit(request, method, await begun)
            else:
                await self._handle(request, method, arguments)
        except WorkerDied:
            _log.warning("process_died", **_context(request, session))
            outcome, error = _NONE
        except BaseException as failure:
            outcome, error = self._judge(request, failure)
        self._deadline = 0.0
        if began is not None:
            seconds = time.perf_counter() - began
            self._runtime.handler_seconds[request.method].observe(seconds)
        if self._stop_code is not None:
            outcome, error = self._stopped(self._stop_code)
        if not outcome:
            return False
        session.finish(request, outcome, error)
        return True

    def _check_attempt(self, request: RequestState, method: Method) -> None:
        """Raise _Ended for a request that must not be run once more."""
        if method.replay != "always":
            _log.warning("request_interrupted", **_context(request, self.session))
            raise _Ended(
                ErrorCode.INTERRUPTED,
                "a crash hit this request, and its method must not run twice",
            )
        if request.attempt >= method.max_attempts:
            _log.error("request_given_up", **_context(request, self.session))
            raise _Ended(
                ErrorCode.HANDLER_ERROR,
                f"given up after {request.attempt} attempts that ended with a crash",
            )

    def _prepare_late(self, request: RequestState) -> None:
        """Make the arguments that were not kept, if they can be made; if not, it ends with that."""
        with suppress(_Ended):
            request.prepared = self._prepare(request)

    def _prepare(self, request: RequestState) -> tuple[Method, tuple[Any, ...]]:
        """Do once more what was done when the request was accepted."""
        method = self._runtime.handlers.get(request.method)
        if method is None:
            raise _Ended(ErrorCode.UNKNOWN_METHOD, f"no method {request.method!r} any more")
        try:
            return method, method.decode(request.params)
        except InvalidParams as error:
            raise _Ended(ErrorCode.INVALID_PARAMS, str(error)) from None

    def _call(self, request: RequestState, attempt: int) -> Request:
        state = self.session.state
        return Request(
            state.id,
            request.n,
            request.id,
            request.method,
            state.subject,
            split_scopes(request.scope),
            attempt,
        )

    async def _handle(
        self, request: RequestState, method: Method, arguments: tuple[Any, ...]
    ) -> None:
        call = self._call(request, request.attempt)
        self._begin_handling(call, alone=True)
        match method.kind:
            case "coroutine":
                self._emit(request, method, await method.function(call, *arguments))
            case "stream":
                given = 0
                async with aclosing(method.function(call, *arguments)) as items:
                    async for item in items:
                        given += self._emit(request, method, item)
                        while (out := self.session.out) is not None and out.full:
                            await out.room()
                        if out is None and given >= TURN_BYTES:
                            given = 0
                            await asyncio.sleep(0)
            case "thread":
                value = await self._runtime.pools.run_thread(method.function, call, *arguments)
                self._emit(request, method, value)
            case "process":
                value = await self._runtime.pools.run_process(method.function, call, *arguments)
                self._emit(request, method, value)

    def _emit(self, request: RequestState, method: Method, item: object) -> int:
        """Hand a result over; return what it is counted for."""
        try:
            data = encode(item)
        except _NOT_JSON as error:
            raise self._not_json(request, error) from None
        if method.live:
            self.session.live_result(request, data)
        else:
            self.session.result(request, data)
        return len(data) + EVENT_BYTES

    def _not_json(self, request: RequestState, error: Exception) -> "_Ended":
        _log.warning("result_not_json", error=str(error), **_context(request, self.session))
        return _Ended(ErrorCode.HANDLER_ERROR, f"the handler gave what JSON cannot hold: {error}")

    # How a request ends that did not end well

    def _judge(self, request: RequestState, failure: BaseException) -> tuple[str, bytes]:
        """Return outcome and error text for what a handler raised.

        Raises `failure` again when it is the worker itself that is to end.
        """
        match failure:
            case RequestError():
                return failure.code, _handler_text(failure)
            case _Ended():
                if failure.code in _UNRUNNABLE:
                    _log.warning(
                        "request_unrunnable", code=failure.code, **_context(request, self.session)
                    )
                return failure.code, _text(failure.code, str(failure))
            case ResultTooLarge():
                return ErrorCode.RESULT_TOO_LARGE, TOO_LARGE
            case asyncio.CancelledError() if self._stop_code is not None or _being_cancelled():
                if self._stop_code is None:
                    raise failure
                return _NONE  # `_stopped` says how it ends
            case PoolsClosed():
                # Not the handler's doing: the server stops, the request stays in the journal.
                raise asyncio.CancelledError from failure
            case Exception() | SystemExit() | asyncio.CancelledError():
                _log.exception("handler_failed", **_context(request, self.session))
                return ErrorCode.HANDLER_ERROR, _FAILED
            case _:
                raise failure

    def _stopped(self, code: ErrorCode) -> tuple[str, bytes]:
        """Return outcome and error text of the request that `stop` was called for."""
        self._stop_code = None
        _uncancel()
        return code, _text(code, self._stop_message)

    # Deadlines: one timer per worker that is armed anew only when it fires too early, so that
    # a short request costs no timer of its own.

    def _arm(self, request: RequestState, method: Method) -> None:
        seconds = method.timeout or self._runtime.request_timeout_seconds
        if request.timeout is not None and request.timeout < seconds:
            seconds = request.timeout
        self._deadline = deadline = self._runtime.loop.time() + seconds
        if deadline < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._set_timer()

    def _tell_timeout(self, request: RequestState) -> None:
        context = _context(request, self.session)
        if request.timeout is None:
            _log.warning("request_timed_out", **context)
        else:  # its client's own affair
            _log.info("request_timed_out", **context)

    def _set_timer(self) -> None:
        self._timer_at = self._deadline
        self._timer = self._runtime.loop.call_at(self._deadline, self._expired)

    def _expired(self) -> None:
        self._timer = None
        self._timer_at = math.inf
        if self._deadline == 0.0 or self.running is None:
            return
        loop = self._runtime.loop
        if loop.time() >= self._deadline:
            if self._stop_code is None:
                self._tell_timeout(self.running)
                self.stop(self.running, ErrorCode.TIMEOUT, _TIMED_OUT)
            elif self._task is not None:
                self._task.cancel()  # the handler swallowed the last one
            self._deadline = loop.time() + STOP_AGAIN_SECONDS
        self._set_timer()


class _Begun:
    """What is left of a coroutine after its first step, for the task that made it to await.

    `waited_for` is what that step waits for, `seconds` what it took. What follows is delegation
    as in PEP 380.
    """

    __slots__ = ("_handler", "_waited_for", "seconds")

    def __init__(self, handler: Coroutine[Any, Any, Any], waited_for: Any, seconds: float) -> None:
        self.seconds = seconds
        self._handler = handler
        self._waited_for = waited_for

    def __await__(self) -> Generator[Any, Any, Any]:
        handler = self._handler
        waited_for = self._waited_for
        while True:
            try:
                sent = yield waited_for
            except BaseException as error:
                step, argument = handler.throw, error
            else:
                step, argument = handler.send, sent
            try:
                waited_for = step(argument)
            except StopIteration as returned:
                return returned.value


class _Ended(Exception):
    """How a request ends that gave no value of its own."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def _text(code: ErrorCode, message: str) -> bytes:
    return encode_error(code, message, retryable=False)


_NOT_JSON: Final = (TypeError, ValueError, OverflowError, RecursionError)
_UNRUNNABLE: Final = {ErrorCode.UNKNOWN_METHOD, ErrorCode.INVALID_PARAMS}
_NONE: Final = ("", b"")
_FAILED: Final = _text(ErrorCode.HANDLER_ERROR, "the handler failed")
_TIMED_OUT: Final = "the handler did not end in time"


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
    except _NOT_JSON as error:
        _log.warning("error_details_not_json", code=failure.code, error=str(error))
        return encode_error(failure.code, failure.message, failure.retryable)


def log_end(request: RequestState, session: Session) -> None:
    """Log (debug) how `request` ended, once that is durable."""
    seconds = request.ended - request.started if request.started else 0.0
    _log.debug(
        "request_ended",
        outcome=request.outcome,
        results=request.total,
        seconds=round(seconds, 6),
        **_context(request, session),
    )


def _context(request: RequestState, session: Session) -> Mapping[str, Any]:
    state = session.state
    return request_fields(state.id, request.n, request.method, state.subject, request.attempt)
