"""Users and history in SQLite, beside the log in the same file.

Writes go through the thread that appends, a few rows at a time, so that an append waits for one
such write at most; reads have a thread of their own.
"""

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

from server.journal.sqlite_thread import SqliteThread
from server.journal.store import HistoryRow, User

SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS users (
        name TEXT PRIMARY KEY,
        password_hash TEXT NOT NULL,
        scope TEXT NOT NULL,
        created_at REAL NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS requests (
        session TEXT NOT NULL,
        n INTEGER NOT NULL,
        state TEXT NOT NULL,
        id TEXT,
        method TEXT,
        subject TEXT,
        attempt INTEGER,
        results INTEGER,
        accepted_at REAL,
        started_at REAL,
        finished_at REAL,
        PRIMARY KEY (session, n)
    ) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS requests_by_age ON requests (accepted_at)",
    "CREATE INDEX IF NOT EXISTS requests_by_subject ON requests (subject, accepted_at)",
)

CHUNK_ROWS: Final = 256
"""Rows written or deleted by one statement, hence in one transaction."""

_COLUMNS: Final = HistoryRow.__struct_fields__
_MERGED: Final = [name for name in _COLUMNS if name not in {"session", "n", "state"}]
_UPSERT_HEAD: Final = f"INSERT INTO requests ({', '.join(_COLUMNS)}) VALUES "  # noqa: S608 - names
_UPSERT_ROW: Final = f"({', '.join('?' * len(_COLUMNS))})"
_UPSERT_TAIL: Final = (
    " ON CONFLICT (session, n) DO UPDATE SET state = excluded.state, "
    + ", ".join(f"{name} = coalesce(excluded.{name}, {name})" for name in _MERGED)
)


class SqliteUsers:
    """See store.Users."""

    def __init__(self, writer: SqliteThread, reader: SqliteThread) -> None:
        self._writer = writer
        self._reader = reader

    async def put(self, user: User) -> None:
        await self._writer.run(
            _write,
            """INSERT OR REPLACE INTO users (name, password_hash, scope, created_at)
               VALUES (?, ?, ?, ?)""",
            (user.name, user.password_hash, user.scope, user.created_at),
        )

    async def get(self, name: str) -> User | None:
        rows = await self._reader.run(_read, f"{_USER} WHERE name = ?", (name,))
        return User(*rows[0]) if rows else None

    async def remove(self, name: str) -> bool:
        return bool(await self._writer.run(_write, "DELETE FROM users WHERE name = ?", (name,)))

    async def list(self) -> Sequence[User]:
        return [User(*row) for row in await self._reader.run(_read, f"{_USER} ORDER BY name", ())]


_USER: Final = "SELECT name, password_hash, scope, created_at FROM users"


class SqliteHistory:
    """See store.History."""

    def __init__(self, writer: SqliteThread, reader: SqliteThread) -> None:
        self._writer = writer
        self._reader = reader

    async def projected(self, owner: str) -> int:
        sql = "SELECT projected FROM owners WHERE name = ?"
        rows = await self._reader.run(_read, sql, (owner,))
        return int(rows[0][0]) if rows else 0

    async def project(self, owner: str, upto: int, rows: Sequence[HistoryRow]) -> None:
        for start in range(0, len(rows), CHUNK_ROWS):
            chunk = rows[start : start + CHUNK_ROWS]
            # One statement for all rows: stepping through them one by one, the thread would have
            # to win the interpreter back from a busy event loop for each.
            sql = _UPSERT_HEAD + ", ".join([_UPSERT_ROW] * len(chunk)) + _UPSERT_TAIL
            values = tuple(chain.from_iterable(map(_values, chunk)))
            await self._writer.run(_write, sql, values)
        await self._writer.run(
            _write,
            """INSERT INTO owners (name, projected) VALUES (?, ?)
               ON CONFLICT (name) DO UPDATE SET projected = max(projected, excluded.projected)""",
            (owner, upto),
        )

    async def find(
        self,
        *,
        session: str | None = None,
        subject: str | None = None,
        state: str | None = None,
        limit: int = 100,
    ) -> Sequence[HistoryRow]:
        filters = {"session": session, "subject": subject, "state": state}
        given = {name: value for name, value in filters.items() if value is not None}
        where = " AND ".join(f"{name} = ?" for name in given) or "true"
        found = await self._reader.run(
            _read,
            f"""SELECT {", ".join(_COLUMNS)} FROM requests WHERE {where}
                ORDER BY accepted_at DESC, session DESC, n DESC LIMIT ?""",  # noqa: S608 - names
            (*given.values(), limit),
        )
        return [HistoryRow(**dict(zip(_COLUMNS, row, strict=True))) for row in found]

    async def expire(self, finished_before: float) -> int:
        deleted = 0
        while await self._reader.run(_read, f"{_EXPIRED} LIMIT 1", (finished_before,) * 2):
            sql = f"""DELETE FROM requests WHERE (session, n) IN
                      ({_EXPIRED} LIMIT {CHUNK_ROWS})"""  # noqa: S608 - constants
            deleted += await self._writer.run(_write, sql, (finished_before,) * 2)
        return deleted


# What finished before then was accepted before then, and that column has an index.
_EXPIRED: Final = """SELECT session, n FROM requests
    WHERE (accepted_at < ? OR accepted_at IS NULL) AND finished_at < ?"""


def _values(row: HistoryRow) -> list[Any]:
    return [getattr(row, name) for name in _COLUMNS]


def _write(connection: sqlite3.Connection, sql: str, parameters: Sequence[Any]) -> int:
    return connection.execute(sql, parameters).rowcount


def _read(connection: sqlite3.Connection, sql: str, parameters: Sequence[Any]) -> list[Any]:
    return connection.execute(sql, parameters).fetchall()
