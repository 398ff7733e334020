"""What only SQLite promises: one process per file, and waiting instead of failing."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.journal import sqlite_log
from server.journal.log import JournalError, Locked, Unavailable
from server.journal.sqlite import SqliteStore, open_sqlite
from tests.contract.backends import Backend, append_many, seqs

ROOT = Path(__file__).parents[2]
HOLDER = """
import asyncio, pathlib, sys
from server.journal.sqlite import open_sqlite
async def main():
    store = await open_sqlite(pathlib.Path(sys.argv[1]), log=True)
    print("holding", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.fixture
def kind() -> str:
    return "sqlite"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def hold(path: Path) -> asyncio.subprocess.Process:
    """Start a process that has the file open."""
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, path, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"holding\n"
    return holder


async def test_a_second_process_is_locked_out_until_the_first_is_killed(path: Path) -> None:
    holder = await hold(path)
    with pytest.raises(Locked, match=f"{path}-lock is locked by process {holder.pid}"):
        await open_sqlite(path, log=True)
    holder.kill()
    await holder.communicate()
    await (await open_sqlite(path, log=True)).close()


async def test_a_store_cannot_be_opened_twice_in_one_process(path: Path) -> None:
    store = await open_sqlite(path, log=True)
    with pytest.raises(Locked, match=f"this very process \\({os.getpid()}\\)"):
        await open_sqlite(path, log=True)
    await store.close()
    await (await open_sqlite(path, log=True)).close()


async def test_a_child_that_outlives_its_killed_parent_does_not_hold_the_lock(path: Path) -> None:
    """As a worker made by fork would."""
    fork = "    import os\n    if os.fork() == 0: sys.stdin.read(); os._exit(0)\n"
    program = HOLDER.replace("    print(", fork + "    print(")
    holder = subprocess.Popen(  # noqa: ASYNC220 - asyncio's own is not done before the child is
        [sys.executable, "-c", program, path],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:  # closes the pipes, which ends the child
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"holding\n"
        holder.kill()
        holder.wait()
        await (await open_sqlite(path, log=True)).close()


async def test_a_file_that_is_no_database_is_refused(text_file: Path) -> None:
    with pytest.raises(JournalError, match="file is not a database"):
        await open_sqlite(text_file, log=True)


@pytest.fixture
def text_file(path: Path) -> Iterator[Path]:
    text = "not a database, but long enough to be mistaken for one" * 100
    path.write_text(text)
    yield path
    assert path.read_text() == text


async def test_a_database_of_a_newer_version_is_refused(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(JournalError, match="newer version"):
        await open_sqlite(path, log=True)


@pytest.fixture
async def store(backend: Backend) -> SqliteStore:
    store = await backend.open()
    assert isinstance(store, SqliteStore)
    return store


async def test_an_append_waits_for_another_writer(store: SqliteStore, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    appending = asyncio.create_task(store.log.append("a", 1, b"one"))
    done, _ = await asyncio.wait([appending], timeout=0.1)
    assert not done
    other.execute("COMMIT")
    other.close()
    await appending
    assert await seqs(store.log, "a") == [1]


async def test_a_full_disk_is_unavailable_until_there_is_room(store: SqliteStore) -> None:
    """The limit on pages stands for the disk: SQLite reports both alike."""
    await append_many(store.log, "a", 1)
    await store._writer.run(lambda connection: connection.execute("PRAGMA max_page_count = 1"))
    big = bytes(10_000_000)
    with pytest.raises(Unavailable, match="full"):
        await store.log.append("a", 2, big)
    await store._writer.run(lambda connection: connection.execute("PRAGMA max_page_count = 9999"))
    await store.log.append("a", 2, big)
    assert await seqs(store.log, "a") == [1, 2]


async def test_every_commit_is_synced(store: SqliteStore) -> None:
    """FULL is 2: without it the end of the write-ahead log may be lost with the power."""
    for pragma, value in (("synchronous", 2), ("journal_mode", "wal")):
        found = await store._writer.run(
            lambda connection, name: connection.execute(f"PRAGMA {name}").fetchone(), pragma
        )
        assert found == (value,)


async def test_a_log_that_was_being_forgotten_is_finished_off_on_opening(
    backend: Backend, store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a crash in the middle: a half-deleted log must not look like a whole one."""
    await append_many(store.log, "a", 20)
    monkeypatch.setattr(sqlite_log, "_delete_chunk", _crash)
    with pytest.raises(ZeroDivisionError):
        await store.log.forget("a")
    monkeypatch.undo()
    assert await store.log.owners() == []
    assert await seqs(store.log, "a") == []
    await backend.reopen(store)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM log").fetchone() == (0,)
    assert connection.execute("SELECT count(*) FROM owners").fetchone() == (0,)
    connection.close()


def _crash(*_: object) -> None:
    raise ZeroDivisionError
