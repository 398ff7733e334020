"""The request log in a SQLite file: what an operator sees who opens it with any tool."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from server.journal import sqlite_tables
from server.journal.buckets import Row, pack_finished, pack_unfinished
from server.journal.log import JournalError
from server.journal.sqlite import SqliteStore, open_sqlite
from server.journal.store import HistoryRow
from tests.contract.backends import Backend

SOME_TEXT = """it's "quoted", \\ and ]}, 世界 🌍"""


@pytest.fixture
def kind() -> str:
    return "sqlite"


@pytest.fixture
async def store(backend: Backend) -> SqliteStore:
    store = await backend.open()
    assert isinstance(store, SqliteStore)
    finished = pack_finished(
        "s",
        "alice",
        [(n, SOME_TEXT, "echo", "done", 1, n, n + 0.25, n + 0.5, n + 0.75) for n in (1, 2)],
    )
    left = [
        pack_unfinished("t", "bob", [(7, "x", "words", "waiting", 0, None, 3.5, None, None)], "")
    ]
    await store.history.project("a", 1, finished, left)
    return store


def rows(path: Path, query: str) -> list[sqlite3.Row]:
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


async def test_the_view_has_a_row_per_request(store: SqliteStore, tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    found = rows(path, "SELECT * FROM requests ORDER BY accepted_at DESC")
    assert [HistoryRow(**dict(row)) for row in found] == await store.history.find()
    assert [(row["session"], row["n"], row["id"]) for row in found] == [
        ("t", 7, "x"),
        ("s", 2, SOME_TEXT),
        ("s", 1, SOME_TEXT),
    ]
    [counted] = rows(path, "SELECT count(*) AS n, max(finished_at) AS last FROM requests")
    assert tuple(counted) == (3, 2.75)


async def test_the_view_finds_a_session_by_its_index(store: SqliteStore, tmp_path: Path) -> None:
    query = "EXPLAIN QUERY PLAN SELECT * FROM requests WHERE session = 's'"
    plan = " ".join(row["detail"] for row in rows(tmp_path / "journal.db", query))
    assert "USING INDEX buckets_by_session (session=?)" in plan


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        ({}, "buckets_by_age (accepted_at<?)"),
        ({"session": "s"}, "buckets_by_session (session=? AND accepted_at<?)"),
        ({"subject": "alice"}, "buckets_by_subject (subject=? AND accepted_at<?)"),
    ],
)
async def test_the_newest_are_found_by_an_index(
    store: SqliteStore, filters: dict[str, str], index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = sqlite_tables._read
    plans: list[str] = []

    def explaining(connection: sqlite3.Connection, sql: str, values: Sequence[Any]) -> list[Any]:
        plans.append(str(read(connection, f"EXPLAIN QUERY PLAN {sql}", values)))
        return read(connection, sql, values)

    monkeypatch.setattr(sqlite_tables, "_read", explaining)
    await store.history.find(**filters)
    of_buckets = [plan for plan in plans if "buckets" in plan]
    assert of_buckets
    for plan in of_buckets:
        assert index in plan
        assert "TEMP B-TREE" not in plan


async def test_a_chunk_is_written_by_one_statement(store: SqliteStore) -> None:
    """Between statements, the thread would have to win the interpreter back from the loop."""
    statements: list[str] = []
    await store._writer.run(lambda connection: connection.set_trace_callback(statements.append))
    rows: list[Row] = [(n, "", "", "done", 1, 1, 1.0, 1.0, 1.0) for n in range(2000)]
    await store.history.project("a", 2, pack_finished("s", "a", rows), [])
    assert len(set(statements)) == 1  # told once more for each row that a trigger takes


async def test_a_database_of_the_first_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE requests (session TEXT, n INTEGER)")
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    with pytest.raises(JournalError, match="older version"):
        await open_sqlite(path, log=True)
