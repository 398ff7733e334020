"""A SQLite connection and the one thread that uses it.

    take a job -> run it with the connection -> hand the outcome to the loop it came from

Jobs run in the order in which they were given, so that a waiting append is never starved by
chunks of other work. A job whose caller was cancelled still runs.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Concatenate, Final, NamedTuple, ParamSpec, TypeVar

from server.journal.log import JournalError, Unavailable

BUSY_SECONDS: Final = 5.0
"""How long to wait for another process that writes (an operator's command) before Unavailable."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


class _Job(NamedTuple):
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"
    work: Callable[[sqlite3.Connection], Any]


class SqliteThread:
    """Runs jobs on a connection to `path`; `setup` is executed statement by statement at first."""

    def __init__(self, path: Path, setup: tuple[str, ...]) -> None:
        self._path = path
        self._setup = setup
        # Bounded by the callers: each waits for its job before it gives the next.
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._main, name=f"sqlite {path.name}", daemon=True)
        self._thread.start()

    async def run(
        self,
        work: Callable[Concatenate[sqlite3.Connection, _P], _T],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """Return `work(connection, ...)`. SQLite's errors come out as those of log.py."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()

        def job(connection: sqlite3.Connection) -> _T:
            return work(connection, *args, **kwargs)

        self._jobs.put(_Job(loop, future, job))
        return await future

    async def close(self) -> None:
        """Finish the jobs given so far, close the connection and end the thread."""
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _main(self) -> None:
        connection: sqlite3.Connection | None = None
        try:
            while (job := self._jobs.get()) is not None:
                try:
                    if connection is None:
                        connection = self._connect()
                    outcome = job.work(connection)
                except sqlite3.Error as error:
                    _report(job, _fail, self._translate(error))
                except Exception as error:
                    _report(job, _fail, error)
                else:
                    _report(job, _resolve, outcome)
        finally:
            if connection is not None:
                connection.close()

    def _connect(self) -> sqlite3.Connection:
        # isolation_level None: a statement outside BEGIN is a transaction of its own.
        connection = sqlite3.connect(
            self._path,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            cached_statements=32,  # those of a projection are long
        )
        try:
            for statement in self._setup:
                connection.execute(statement)
        except BaseException:
            connection.close()
            raise
        return connection

    def _translate(self, error: sqlite3.Error) -> JournalError:
        # OperationalError: full, locked, I/O error. Its base class: not a database, corrupt.
        kind = Unavailable if isinstance(error, sqlite3.OperationalError) else JournalError
        translated = kind(f"{self._path}: {error}")
        translated.__cause__ = error
        return translated


def execute(connection: sqlite3.Connection, sql: str, parameters: Sequence[Any]) -> int:
    """Execute one statement (a job); return how many rows it changed."""
    return connection.execute(sql, parameters).rowcount


def fetch(connection: sqlite3.Connection, sql: str, parameters: Sequence[Any]) -> list[Any]:
    """Return the rows of one query (a job)."""
    return connection.execute(sql, parameters).fetchall()


@contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None]:
    """Make everything inside durable together, or undo it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        # A failed COMMIT may have ended the transaction by itself, or not.
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _report(job: _Job, how: Callable[..., None], outcome: Any) -> None:
    job.loop.call_soon_threadsafe(how, job.future, outcome)


def _resolve(future: "asyncio.Future[Any]", outcome: Any) -> None:
    if not future.done():
        future.set_result(outcome)


def _fail(future: "asyncio.Future[Any]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
