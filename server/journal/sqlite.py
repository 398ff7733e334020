"""A store in one SQLite file: the embedded default.

    one thread and connection write (log first of all), another pair reads
    WAL, synchronous=FULL: what was appended survives a crash of the machine

The log belongs to one process at a time, by a lock on `<path>-lock`. Users and history may be
opened without it, so that an operator's commands work beside a running server.
"""

import os
import sqlite3
from pathlib import Path
from typing import Final

from server.journal import sqlite_commands, sqlite_log, sqlite_tables
from server.journal.filelock import FileLock
from server.journal.log import JournalError, Log, LogReader
from server.journal.sqlite_commands import SqliteCommands
from server.journal.sqlite_log import SqliteLog
from server.journal.sqlite_tables import SqliteHistory, SqliteUsers
from server.journal.sqlite_thread import SqliteThread, transaction

SCHEMA_VERSION: Final = 3
PRIVATE_MODE: Final = 0o600
CHECKPOINT_PAGES: Final = 4096
"""Pages (of 4 KiB) in the write-ahead log after which it is copied into the database file."""
WAL_BYTES_KEPT: Final = 64 * 1024 * 1024
"""The write-ahead log's file is cut back to this after a burst."""

_SETUP: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}",
    f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}",
)
_SETUP_READER: Final = ("PRAGMA query_only = ON",)


class SqliteStore:
    """See store.Store. Made by open_sqlite."""

    def __init__(self, writer: SqliteThread, reader: SqliteThread, lock: FileLock | None) -> None:
        self.users = SqliteUsers(writer, reader)
        self.history = SqliteHistory(writer, reader)
        self.commands = SqliteCommands(writer, reader)
        self._log = SqliteLog(writer, reader)
        self._writer = writer
        self._reader = reader
        self._lock = lock

    @property
    def log(self) -> Log:
        """The logs. Raises JournalError when the store was opened without them."""
        if self._lock is None:
            raise JournalError("this store was opened without its log")
        return self._log

    @property
    def log_reader(self) -> LogReader:
        """The logs, to read only."""
        return self._log

    async def start(self) -> None:
        """Make the database ready; open_sqlite does it."""
        await self._writer.run(_make_schema)
        if self._lock is not None:
            await self._log.start()

    async def close(self) -> None:
        """Finish what was begun, close both connections and let go of the lock."""
        await self._reader.close()
        await self._writer.close()
        if self._lock is not None:
            self._lock.release()


async def open_sqlite(path: Path, *, log: bool, make: bool = True) -> SqliteStore:
    """Open the database at `path`; with `make`, make it when it is missing (not its directory).

    Raises Locked when `log` is asked for and another process has it, JournalError for a file
    that cannot be used.
    """
    path = _usable(path)
    if make:
        _make_private(path)
    elif not path.exists():
        raise JournalError(f"there is no journal at {path}")
    lock = FileLock(path.with_name(path.name + "-lock")) if log else None
    writer = SqliteThread(path, _SETUP)
    reader = SqliteThread(path, _SETUP_READER)
    store = SqliteStore(writer, reader, lock)
    try:
        await store.start()
    except BaseException:
        await store.close()
        raise
    return store


def _usable(path: Path) -> Path:
    path = path.absolute()
    if not path.parent.is_dir():
        raise JournalError(f"cannot open {path}: there is no directory {path.parent}")
    return path


def _make_private(path: Path) -> None:
    """Make a missing file readable for its owner only, as SQLite then makes those beside it.

    It holds what clients send and the hashes of passwords. One that is there keeps its mode.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE_MODE))
    except FileExistsError:
        pass  # not even opened: closing it would end SQLite's locks of this process
    except OSError as error:
        raise JournalError(f"cannot open {path}: {error.strerror}") from error


def _make_schema(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise JournalError(f"this database was made by a newer version (schema {version})")
    if 0 < version < SCHEMA_VERSION:
        raise JournalError(
            f"this database was made by an older version (schema {version}), which this one"
            " cannot read: move the file away"
        )
    if version == 0:
        with transaction(connection):
            for statement in (*sqlite_log.SCHEMA, *sqlite_tables.SCHEMA):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    # What was added to this version since: who does not know it is not disturbed by it.
    for statement in (*sqlite_commands.SCHEMA, *sqlite_tables.ADDED_SCHEMA):
        connection.execute(statement)
