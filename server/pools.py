"""Where handlers run that are no coroutines: in a thread, or with process=True in a process.

Whatever was begun is awaited to its end, also when the await is cancelled: a session runs one
request at a time (DESIGN, G3). Both pools are bounded; further calls wait in order.

Errors:

    PoolsClosed   the server stops: the call was not made, or its end was not waited for
    WorkerDied    the process that ran the function died before the function ended
"""

import asyncio
import os
from collections.abc import Callable
from typing import Any, Final

from server.processes import Processes, WorkerDied
from server.threads import PoolsClosed, Threads

__all__ = ["Pools", "PoolsClosed", "WorkerDied"]

GRACE_SECONDS: Final = 1.0


class Pools:
    """The threads and processes of one server; nothing is started before it is needed."""

    def __init__(self, threads: int | None = None, processes: int | None = None) -> None:
        cpus = os.cpu_count() or 1
        self._threads = Threads(threads or min(32, cpus + 4), "handler")
        self._processes = Processes(processes or cpus)

    @property
    def thread_jobs(self) -> int:
        """Calls in threads: those that run and those that wait for one."""
        return self._threads.jobs

    @property
    def process_jobs(self) -> int:
        """Calls in processes: those that run and those that wait for one."""
        return self._processes.jobs

    async def run_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call the function in a thread (see Threads.run). Raises PoolsClosed."""
        return await self._threads.run(function, *arguments)

    async def run_process(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call the function in a process (see Processes.run). Raises WorkerDied, PoolsClosed."""
        return await self._processes.run(function, *arguments)

    async def close(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """Make no further call and wait that long for those that run; then give them up.

        Processes are killed. A thread cannot be: it goes on until its function ends, or the
        server does, which does not wait for it.
        """
        await asyncio.gather(
            self._threads.close(grace_seconds), self._processes.close(grace_seconds)
        )
