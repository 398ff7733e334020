"""Users and history in SQLite, beside the log in the same file.

    buckets      finished requests, many of a session in a row, never changed
    unfinished   the others, all of a session in a row
    requests     a view of both, a row per request: for operators
    failures     what it takes to run again those that ended with an error
    projecting   a view that takes what a chunk of the log has come to (see project)

Writes go through the thread that appends, one statement at a time, so that an append waits for
one such write at most; reads have a thread of their own.
"""

import sqlite3
from collections.abc import AsyncGenerator, Iterator, Sequence
from itertools import chain
from typing import Any, Final

import msgspec

from server.journal.buckets import FIELDS, find
from server.journal.entries import DONE
from server.journal.sqlite_thread import SqliteThread, transaction
from server.journal.store import (
    FAILED,
    FAILURES_MAX,
    Bucket,
    Failed,
    HistoryRow,
    Packed,
    Query,
    Unfinished,
    User,
)


def _requests(table: str) -> str:
    fields = ", ".join(
        f"json_extract(value, '$[{position}]') AS {name}" for position, name in enumerate(FIELDS)
    )
    return f"SELECT session, subject, {fields} FROM {table}, json_each(packed)"  # noqa: S608 - names


SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS users (
        name TEXT PRIMARY KEY,
        password_hash TEXT NOT NULL,
        scope TEXT NOT NULL,
        created_at REAL NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS buckets (
        number INTEGER PRIMARY KEY,
        session TEXT NOT NULL,
        subject TEXT,
        accepted_at REAL NOT NULL,
        finished_at REAL NOT NULL,
        count INTEGER NOT NULL,
        states TEXT NOT NULL,
        packed TEXT NOT NULL
    )""",
    "CREATE INDEX IF NOT EXISTS buckets_by_age ON buckets (accepted_at)",
    "CREATE INDEX IF NOT EXISTS buckets_by_session ON buckets (session, accepted_at)",
    "CREATE INDEX IF NOT EXISTS buckets_by_subject ON buckets (subject, accepted_at)",
    """CREATE TABLE IF NOT EXISTS unfinished (
        number INTEGER PRIMARY KEY,
        session TEXT NOT NULL UNIQUE,
        subject TEXT,
        accepted_at REAL NOT NULL,
        packed TEXT NOT NULL
    )""",
    f"""CREATE VIEW IF NOT EXISTS requests AS
        {_requests("buckets")} UNION ALL {_requests("unfinished")}""",
    """CREATE VIEW IF NOT EXISTS projecting AS
        SELECT '' AS kind, session AS name, subject, accepted_at, finished_at,
            count AS number, states, packed FROM buckets WHERE false""",
    """CREATE TRIGGER IF NOT EXISTS projecting_finished INSTEAD OF INSERT ON projecting
        WHEN NEW.kind = 'finished' BEGIN
            INSERT INTO buckets
                (session, subject, accepted_at, finished_at, count, states, packed)
            VALUES (NEW.name, NEW.subject, NEW.accepted_at, NEW.finished_at,
                NEW.number, NEW.states, NEW.packed);
        END""",
    """CREATE TRIGGER IF NOT EXISTS projecting_unfinished INSTEAD OF INSERT ON projecting
        WHEN NEW.kind = 'unfinished' AND NEW.packed <> '' BEGIN
            INSERT INTO unfinished (session, subject, accepted_at, packed)
            VALUES (NEW.name, NEW.subject, NEW.accepted_at, NEW.packed)
            ON CONFLICT (session) DO UPDATE SET subject = excluded.subject,
                accepted_at = excluded.accepted_at, packed = excluded.packed;
        END""",
    """CREATE TRIGGER IF NOT EXISTS projecting_nothing_unfinished INSTEAD OF INSERT ON projecting
        WHEN NEW.kind = 'unfinished' AND NEW.packed = '' BEGIN
            DELETE FROM unfinished WHERE session = NEW.name;
        END""",
    """CREATE TRIGGER IF NOT EXISTS projecting_upto INSTEAD OF INSERT ON projecting
        WHEN NEW.kind = 'upto' BEGIN
            INSERT INTO owners (name, projected) VALUES (NEW.name, NEW.number)
            ON CONFLICT (name) DO UPDATE SET projected = max(projected, excluded.projected);
        END""",
)

ADDED_SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS failures (
        number INTEGER PRIMARY KEY,
        session TEXT NOT NULL,
        n INTEGER NOT NULL,
        finished_at REAL NOT NULL,
        packed TEXT NOT NULL,
        UNIQUE (session, n)
    )""",
    "CREATE INDEX IF NOT EXISTS failures_by_age ON failures (finished_at)",
    """CREATE TRIGGER IF NOT EXISTS projecting_failed INSTEAD OF INSERT ON projecting
        WHEN NEW.kind = 'failed' BEGIN
            INSERT OR IGNORE INTO failures (session, n, finished_at, packed)
            VALUES (NEW.name, NEW.number, NEW.finished_at, NEW.packed);
        END""",
)
"""What was added to this version of the schema since it was made."""

STATEMENT_ROWS: Final = 3000
"""Rows given to one statement; SQLite takes 32,766 values."""
PAGE_BUCKETS: Final = 16
"""Buckets read at a time."""
EXPIRED_BUCKETS: Final = 64
"""Buckets deleted by one statement, hence in one transaction."""
EXPIRED_FAILURES: Final = 256
"""Failures deleted by one statement."""

_PROJECT: Final = "INSERT INTO projecting VALUES "
_PROJECT_ROW: Final = "(?, ?, ?, ?, ?, ?, ?, ?)"


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

    async def resume(self, owner: str) -> int:
        return await self.projected(owner)

    async def unfinished(self, sessions: Sequence[str]) -> Sequence[Packed]:
        rows = await self._reader.run(
            _read,
            """SELECT session, subject, accepted_at, packed FROM unfinished
               WHERE session IN (SELECT value FROM json_each(?))""",
            (_encode(sessions).decode(),),
        )
        return [_piece(row) for row in rows]

    async def project(
        self,
        owner: str,
        upto: int,
        finished: Sequence[Bucket],
        unfinished: Sequence[Unfinished],
        failed: Sequence[Failed] = (),
    ) -> None:
        await self._writer.run(_project, _values(owner, upto, finished, unfinished, failed))

    async def failed(self, session: str, n: int) -> Failed | None:
        sql = "SELECT packed FROM failures WHERE session = ? AND n = ?"
        rows = await self._reader.run(_read, sql, (session, n))
        return _decode_failed(rows[0][0]) if rows else None

    async def find(
        self,
        *,
        session: str | None = None,
        subject: str | None = None,
        state: str | None = None,
        limit: int = 100,
    ) -> Sequence[HistoryRow]:
        query = Query(session=session, subject=subject, state=state, limit=limit)
        return await find(self, query)

    async def unfinished_pieces(self, query: Query) -> AsyncGenerator[Packed]:
        # By number, which a row keeps: a session that goes on meanwhile is not passed over.
        where, values = _where(query)
        sql = f"""SELECT session, subject, accepted_at, packed, number FROM unfinished
                  WHERE {where} AND number > ? ORDER BY number LIMIT {PAGE_BUCKETS}"""  # noqa: S608 - names
        after = 0
        while page := await self._reader.run(_read, sql, (*values, after)):
            for row in page:
                yield _piece(row)
            after = page[-1][4]

    async def finished_pieces(self, query: Query) -> AsyncGenerator[Packed]:
        where, values = _where(query)
        if query.state == FAILED:
            where += " AND EXISTS (SELECT 1 FROM json_each(states) WHERE value <> ?)"
            values.append(DONE)
        elif query.state is not None:
            where += " AND ? IN (SELECT value FROM json_each(states))"
            values.append(query.state)
        sql = f"""SELECT session, subject, accepted_at, packed, number FROM buckets
                  WHERE {where} AND (accepted_at, number) < (?, ?)
                  ORDER BY accepted_at DESC, number DESC LIMIT {PAGE_BUCKETS}"""  # noqa: S608 - names
        after: tuple[float, int] = (float("inf"), 0)
        while page := await self._reader.run(_read, sql, (*values, *after)):
            for row in page:
                yield _piece(row)
            after = (page[-1][2], page[-1][4])

    async def expire(self, finished_before: float) -> int:
        await self._expire_failures(finished_before)
        expired = 0
        while True:
            ((count, numbers),) = await self._reader.run(_read, _EXPIRED, (finished_before,) * 2)
            if not count:
                return expired
            sql = "DELETE FROM buckets WHERE number IN (SELECT value FROM json_each(?))"
            await self._writer.run(_write, sql, (numbers,))
            expired += count

    async def _expire_failures(self, finished_before: float) -> None:
        while True:
            ((first, last, oldest),) = await self._reader.run(_read, _FAILURES, ())
            if first is None or (last - first < FAILURES_MAX and oldest >= finished_before):
                return
            sql = f"""DELETE FROM failures WHERE number IN (
                SELECT number FROM failures WHERE number <= ? OR finished_at < ?
                LIMIT {EXPIRED_FAILURES})"""  # noqa: S608 - constants
            await self._writer.run(_write, sql, (last - FAILURES_MAX, finished_before))


_FAILURES: Final = """SELECT (SELECT min(number) FROM failures),
    (SELECT max(number) FROM failures), (SELECT min(finished_at) FROM failures)"""

# What finished before then was accepted before then, and that column has an index.
_EXPIRED: Final = f"""SELECT sum(count), json_group_array(number) FROM (
    SELECT number, count FROM buckets
    WHERE accepted_at < ? AND finished_at < ? LIMIT {EXPIRED_BUCKETS})"""  # noqa: S608 - constants

_encode: Final = msgspec.json.Encoder().encode
_decode_failed: Final = msgspec.json.Decoder(Failed).decode


def _where(query: Query) -> tuple[str, list[Any]]:
    """Return the condition of the rows that may match `query`, and its values."""
    given = {
        "session = ?": query.session,
        "subject = ?": query.subject,
        "accepted_at >= ?": query.accepted_after,  # that of the newest request in the row
    }
    given = {condition: value for condition, value in given.items() if value is not None}
    return " AND ".join(given) or "true", list(given.values())


def _piece(row: Sequence[Any]) -> Packed:
    return Packed(session=row[0], subject=row[1], accepted_at=row[2], packed=row[3])


def _values(
    owner: str,
    upto: int,
    finished: Sequence[Bucket],
    unfinished: Sequence[Unfinished],
    failed: Sequence[Failed],
) -> Iterator[tuple[Any, ...]]:
    """Yield the rows to insert into `projecting`."""
    for new in finished:
        yield (
            "finished",
            new.session,
            new.subject,
            new.accepted_at,
            new.finished_at,
            new.count,
            _encode(new.states).decode(),
            new.packed,
        )
    for now in unfinished:
        yield (
            "unfinished",
            now.session,
            now.subject,
            now.accepted_at,
            None,
            None,
            None,
            now.packed,
        )
    for one in failed:
        packed = _encode(one).decode()
        yield ("failed", one.session, None, None, one.finished_at, one.n, None, packed)
    yield ("upto", owner, None, None, None, upto, None, None)


def _project(connection: sqlite3.Connection, values: Iterator[tuple[Any, ...]]) -> None:
    """Insert `values` into `projecting`: all of them, or none.

    One statement for everything, so that it is a transaction by itself: between statements, the
    thread would have to win the interpreter back from a busy event loop, with appends waiting.
    """
    rows = list(values)
    if len(rows) <= STATEMENT_ROWS:
        _insert(connection, rows)
        return
    with transaction(connection):
        for start in range(0, len(rows), STATEMENT_ROWS):
            _insert(connection, rows[start : start + STATEMENT_ROWS])


def _insert(connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    sql = _PROJECT + ", ".join([_PROJECT_ROW] * len(rows))
    connection.execute(sql, tuple(chain.from_iterable(rows)))


def _write(connection: sqlite3.Connection, sql: str, parameters: Sequence[Any]) -> int:
    return connection.execute(sql, parameters).rowcount


def _read(connection: sqlite3.Connection, sql: str, parameters: Sequence[Any]) -> list[Any]:
    return connection.execute(sql, parameters).fetchall()
