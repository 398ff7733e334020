"""The log in SQLite: one row per commit, in one b-tree that grows at its right edge.

    key = number of the owner << 40 | seq        data = the commit, NULL for the seal

One thread writes, so what this process knows of a log (its number, its last commit) is the truth,
and an append is a single INSERT: one transaction, one fsync. Trimming goes in small chunks, each
a job of its own, so that an append never waits for more than one of them.
"""

import sqlite3
from collections.abc import AsyncGenerator, Collection
from typing import Any, Final

from server.journal.log import Commit, LogInfo, Sealed
from server.journal.owners import check_next, check_owner
from server.journal.sqlite_thread import SqliteThread, transaction

SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS log (key INTEGER PRIMARY KEY, data BLOB)",
    """CREATE TABLE IF NOT EXISTS owners (
        number INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        trimmed INTEGER NOT NULL DEFAULT 0,
        sealed_by TEXT,
        projected INTEGER NOT NULL DEFAULT 0,
        forgotten INTEGER NOT NULL DEFAULT 0
    )""",
)

READ_BYTES: Final = 8 * 1024 * 1024
"""A batch of commits ends with the one that reaches this size."""
READ_ROWS: Final = 256
DELETE_BYTES: Final = 4 * 1024 * 1024
"""A chunk of deletions ends with the commit that reaches this size."""
DELETE_ROWS: Final = 256

_SEQ_BITS: Final = 40
_SEQ_MAX: Final = (1 << _SEQ_BITS) - 1


class _Owner:
    """What the writing thread knows of a log; `last` is the seq of its last commit."""

    def __init__(self, number: int, last: int, trimmed: int) -> None:
        self.base = number << _SEQ_BITS
        self.last = last
        self.trimmed = trimmed


class SqliteLog:
    """See log.Log. `writer` and `reader` are threads on the same database file."""

    def __init__(self, writer: SqliteThread, reader: SqliteThread) -> None:
        self._writer = writer
        self._reader = reader
        self._owners: dict[str, _Owner] = {}  # touched by the writing thread only

    async def start(self) -> None:
        """Remove what earlier processes had forgotten, but not yet or not wholly deleted."""
        for (name,) in await self._reader.run(_rows, "SELECT name FROM owners WHERE forgotten"):
            await self._delete(name, _SEQ_MAX)
            await self._writer.run(_execute, "DELETE FROM owners WHERE name = ?", (name,))

    async def append(self, owner: str, seq: int, data: bytes) -> None:
        await self._writer.run(self._append, owner, seq, data)

    def _append(self, connection: sqlite3.Connection, owner: str, seq: int, data: bytes) -> None:
        known = self._owners.get(owner) or self._open(connection, owner)
        check_next(owner, seq, known.last)
        if seq > known.last:
            try:
                connection.execute("INSERT INTO log VALUES (?, ?)", (known.base + seq, data))
            except sqlite3.IntegrityError:
                pass  # the seal is there; what follows finds it
            else:
                known.last = seq
                return
        self._compare(connection, owner, known.base + seq, data)

    def _compare(self, connection: sqlite3.Connection, owner: str, key: int, data: bytes) -> None:
        row = connection.execute("SELECT data FROM log WHERE key = ?", (key,)).fetchone()
        if row != (data,):
            raise Sealed(f"the log of {owner} has something else as commit {key & _SEQ_MAX}")

    def _open(self, connection: sqlite3.Connection, owner: str) -> _Owner:
        check_owner(owner)
        connection.execute("INSERT OR IGNORE INTO owners (name) VALUES (?)", (owner,))
        number, trimmed, forgotten = connection.execute(
            "SELECT number, trimmed, forgotten FROM owners WHERE name = ?", (owner,)
        ).fetchone()
        if forgotten:
            raise Sealed(f"the log of {owner} was taken over and deleted")
        base = number << _SEQ_BITS
        (key,) = connection.execute(
            "SELECT max(key) FROM log WHERE key BETWEEN ? AND ? AND data IS NOT NULL",
            (base, base + _SEQ_MAX),
        ).fetchone()
        last = max(trimmed, 0 if key is None else key - base)
        known = self._owners[owner] = _Owner(number, last, trimmed)
        return known

    async def read(self, owner: str, after: int) -> AsyncGenerator[Commit, None]:
        while batch := await self._reader.run(_read, owner, after):
            for commit in batch:
                yield commit
            after = batch[-1].seq

    async def owners(self) -> list[LogInfo]:
        rows = await self._reader.run(
            _rows,
            f"""SELECT name, trimmed, sealed_by FROM owners WHERE NOT forgotten AND (
                    trimmed > 0 OR EXISTS (SELECT 1 FROM log WHERE key BETWEEN
                        number << {_SEQ_BITS} AND (number << {_SEQ_BITS}) + {_SEQ_MAX})
                ) ORDER BY name""",  # noqa: S608 - constants
        )
        return [LogInfo(*row) for row in rows]

    async def seal(self, owner: str, by: str) -> str:
        return await self._writer.run(self._seal, owner, by)

    def _seal(self, connection: sqlite3.Connection, owner: str, by: str) -> str:
        known = self._owners.get(owner) or self._open(connection, owner)
        with transaction(connection):
            (sealed_by,) = connection.execute(
                "SELECT sealed_by FROM owners WHERE name = ?", (owner,)
            ).fetchone()
            if sealed_by is None:
                sealed_by = by
                connection.execute(
                    "INSERT INTO log VALUES (?, NULL)", (known.base + known.last + 1,)
                )
                connection.execute("UPDATE owners SET sealed_by = ? WHERE name = ?", (by, owner))
        return sealed_by

    async def trim(self, owner: str, upto: int, spare: Collection[int] = ()) -> None:
        upto = await self._writer.run(self._mark_trimmed, owner, upto)
        await self._delete(owner, upto, spare)

    def _mark_trimmed(self, connection: sqlite3.Connection, owner: str, upto: int) -> int:
        known = self._owners.get(owner) or self._open(connection, owner)
        upto = min(upto, known.last)
        if upto > known.trimmed:
            connection.execute("UPDATE owners SET trimmed = ? WHERE name = ?", (upto, owner))
            known.trimmed = upto
        return upto

    async def forget(self, owner: str) -> None:
        # The mark hides the rest of the log should this process end before all is deleted, and
        # keeps a former owner in this process from writing on; start() removes it.
        await self._writer.run(self._mark_forgotten, owner)
        await self._delete(owner, _SEQ_MAX)

    def _mark_forgotten(self, connection: sqlite3.Connection, owner: str) -> None:
        connection.execute("UPDATE owners SET forgotten = 1 WHERE name = ?", (owner,))
        self._owners.pop(owner, None)

    async def _delete(self, owner: str, upto: int, spare: Collection[int] = ()) -> None:
        # Each statement is one step for sqlite3, however many rows it touches: a thread that
        # steps row by row has to win the interpreter back from a busy event loop for each.
        spared = "[" + ",".join(map(str, spare)) + "]"
        after = 0
        while (end := await self._reader.run(_chunk_end, owner, after, upto)) is not None:
            await self._writer.run(_delete_chunk, owner, after, end, spared)
            after = end


def _execute(connection: sqlite3.Connection, sql: str, parameters: tuple[object, ...]) -> None:
    connection.execute(sql, parameters)


def _rows(connection: sqlite3.Connection, sql: str) -> list[Any]:
    return connection.execute(sql).fetchall()


def _read(connection: sqlite3.Connection, owner: str, after: int) -> list[Commit]:
    rows = connection.execute(
        f"""SELECT key & {_SEQ_MAX}, data FROM log, owners
            WHERE name = ? AND NOT forgotten AND data IS NOT NULL
            AND key > (number << {_SEQ_BITS}) + ? AND key <= (number << {_SEQ_BITS}) + {_SEQ_MAX}
            ORDER BY key LIMIT {READ_ROWS}""",  # noqa: S608 - constants
        (owner, after),
    )
    commits: list[Commit] = []
    size = 0
    for seq, data in rows:
        commits.append(Commit(seq, data))
        size += len(data)
        if size >= READ_BYTES:
            break
    rows.close()
    return commits


def _chunk_end(connection: sqlite3.Connection, owner: str, after: int, upto: int) -> int | None:
    """Return the seq with which a chunk of deletions after `after` ends, or None at the end."""
    (seq,) = connection.execute(
        f"""SELECT max(seq) FROM (
                SELECT key & {_SEQ_MAX} AS seq,
                    sum(length(data)) OVER (ORDER BY key ROWS UNBOUNDED PRECEDING)
                        - length(data) AS bytes_before
                FROM log, owners
                WHERE name = ? AND key > (number << {_SEQ_BITS}) + ?
                    AND key <= (number << {_SEQ_BITS}) + ?
                ORDER BY key LIMIT {DELETE_ROWS}
            ) WHERE coalesce(bytes_before, 0) < {DELETE_BYTES}""",  # noqa: S608 - constants
        (owner, after, upto),
    ).fetchone()
    return seq


def _delete_chunk(
    connection: sqlite3.Connection, owner: str, after: int, upto: int, spare: str
) -> None:
    connection.execute(
        f"""DELETE FROM log WHERE key IN (
                SELECT key FROM log, owners
                WHERE name = ? AND key > (number << {_SEQ_BITS}) + ?
                    AND key <= (number << {_SEQ_BITS}) + ?
                    AND key & {_SEQ_MAX} NOT IN (SELECT value FROM json_each(?)))""",  # noqa: S608
        (owner, after, upto, spare),
    )
