"""A pool of processes that can lose one without the others noticing.

    call -> idle process, or a new one -> pickled function and arguments
    -> pickled result or exception -> the process is idle again

Each process is spoken to, over a pipe of its own, by the thread that waits for its answer. When
one dies, its call ends with WorkerDied and a new process takes its place; with
concurrent.futures.ProcessPoolExecutor every call in the pool would end with it.
"""

import atexit
import multiprocessing
import pickle
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, Final

import structlog

from server import logs
from server.log_context import handled
from server.process_worker import SIGNALS, serve_calls
from server.threads import PoolsClosed, Threads

START_SECONDS: Final = 30.0
"""A call waits so long for a system that gives no further process; then it fails."""
START_AGAIN_SECONDS: Final = 0.2

_log = structlog.get_logger(__name__)


class WorkerDied(Exception):
    """The process that ran the function died before the function ended."""


class Processes:
    """At most `size` processes, started as they are needed; further calls wait in order."""

    def __init__(self, size: int) -> None:
        self._threads = Threads(size, "process")
        self._lock = threading.Lock()
        self._all: set[_Worker] = set()
        self._idle: list[_Worker] = []
        self._closed = False
        # An interpreter that exits without close() would wait for the processes for ever.
        atexit.register(self._kill)

    @property
    def jobs(self) -> int:
        """Calls that run or wait for a process."""
        return self._threads.jobs

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call the function in a process and return what it returns or raise what it raises.

        As Threads.run; in addition everything is pickled, the function by its name. An exception
        that does not survive that comes as RuntimeError with its text. Raises WorkerDied, and
        what pickle raises for what it cannot take, and OSError when no process can be started
        for START_SECONDS.
        """
        call = pickle.dumps((function, arguments, handled()))
        returned, value = pickle.loads(await self._threads.run(self._call, call))  # noqa: S301 - from our own process
        if returned:
            return value
        raise value

    async def close(self, grace_seconds: float) -> None:
        """Make no further call, wait that long for those that run, then kill every process.

        Calls that still run end with PoolsClosed.
        """
        await self._threads.close(grace_seconds)
        self._kill()
        atexit.unregister(self._kill)

    # From here on in the threads of `_threads`

    def _call(self, call: bytes) -> bytes:
        worker = self._take()
        try:
            answer = worker.call(call)
        except (EOFError, OSError) as error:
            exit_code = self._remove(worker)
            raise WorkerDied(f"the process that ran it ended with {exit_code}") from error
        self._idle.append(worker)
        return answer

    def _take(self) -> "_Worker":
        give_up_at = time.monotonic() + START_SECONDS
        while True:
            try:
                return self._take_now()
            except OSError as error:  # too many processes, or too little memory
                if time.monotonic() >= give_up_at:
                    raise
                _log.warning("process_not_started", error=str(error))
                time.sleep(START_AGAIN_SECONDS)

    def _take_now(self) -> "_Worker":
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                if worker.process.is_alive():
                    return worker
                self._all.discard(worker)
            if self._closed:
                raise PoolsClosed("the server stops: no further process is started")
            worker = _Worker()
            self._all.add(worker)
            return worker

    def _remove(self, worker: "_Worker") -> int | None:
        self._all.discard(worker)
        worker.kill()
        return worker.process.exitcode

    def _kill(self) -> None:
        with self._lock:
            self._closed = True
            workers = list(self._all)
        for worker in workers:
            self._remove(worker)


class _Worker:
    """One process and our end of its pipe, which closes when nobody refers to it any more."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._ending = threading.Lock()
        self._connection: Connection
        self._connection, theirs = context.Pipe()
        self.process = context.Process(target=serve_calls, args=(theirs, logs.chosen()))
        # A signal to the whole group shall not end it while it starts: blocked, until it has
        # handlers. The tracker would unblock them when it is started in between.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()

    def call(self, call: bytes) -> bytes:
        """Send one call and wait for its answer. Raises EOFError or OSError when it is dead."""
        self._connection.send_bytes(call)
        return self._connection.recv_bytes()

    def kill(self) -> None:
        """End the process now; it is gone when this returns."""
        with self._ending:  # of two threads that wait for a process only one learns of its end
            self.process.kill()
            self.process.join()
