"""The files of the journal are damaged: what can be read is, or the server says what cannot."""

import asyncio
import random
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from server.journal.sqlite import open_sqlite
from tests.contract.backends import commits
from tests.faults.server import FaultyServer, Witness

COMMITS = 40
FRAME_BYTES = 4096 + 24
"""Of SQLite's write-ahead log, behind a header of 32."""


def commit(seq: int) -> bytes:
    return b"commit %d " % seq + bytes(seq * 397 % 9000)


@pytest.fixture
async def crashed(tmp_path: Path) -> Path:
    """A directory as a crash left it: a database, and its log with COMMITS commits."""
    (tmp_path / "living").mkdir()
    store = await open_sqlite(tmp_path / "living" / "journal.db", log=True)
    for seq in range(1, COMMITS + 1):
        await store.log.append("owner", seq, commit(seq))
    crashed = tmp_path / "crashed"
    shutil.copytree(tmp_path / "living", crashed)
    (crashed / "journal.db-shm").unlink()
    await store.close()
    return crashed


async def recovered(crashed: Path, log: bytes) -> int:
    """Return how many commits are there with `log` as the write-ahead log, from the first on."""
    copy = crashed.with_name("copy")
    shutil.copytree(crashed, copy, dirs_exist_ok=True)
    (copy / "journal.db-wal").write_bytes(log)
    (copy / "journal.db-shm").unlink(missing_ok=True)
    store = await open_sqlite(copy / "journal.db", log=True)
    found = await commits(store.log, "owner")
    await store.close()
    assert [(each.seq, each.data) for each in found] == [
        (seq, commit(seq)) for seq in range(1, len(found) + 1)
    ]
    return len(found)


async def test_a_log_cut_anywhere_gives_every_commit_before_the_cut(crashed: Path) -> None:
    """In order, none altered, and no fewer than from a shorter one."""
    log = (crashed / "journal.db-wal").read_bytes()
    dice = random.Random(20261125)  # noqa: S311 - not a secret
    cuts = {dice.randrange(len(log)) for _ in range(60)}
    for frames in range(0, len(log) // FRAME_BYTES, 9):  # and around the ends of frames
        cuts |= {32 + frames * FRAME_BYTES + more for more in (-1, 0, 1, 24)}
    counts = [await recovered(crashed, log[:cut]) for cut in sorted(cuts)]
    assert counts == sorted(counts)
    assert await recovered(crashed, log) == COMMITS


async def test_garbage_behind_the_log_costs_nothing(crashed: Path) -> None:
    log = (crashed / "journal.db-wal").read_bytes()
    dice = random.Random(20261125)  # noqa: S311 - not a secret
    for size in (1, 31, FRAME_BYTES, 3 * FRAME_BYTES + 7):
        assert await recovered(crashed, log + dice.randbytes(size)) == COMMITS


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultyServer]:
    server = FaultyServer(tmp_path)
    yield server
    server.close()


async def leave_a_journal(server: FaultyServer) -> Path:
    """Have some requests done, and the server killed; return the database, all in one file."""
    await server.astart()
    witness = Witness(server)
    asking = asyncio.create_task(witness.ask())
    await witness.promises(20)
    await asyncio.to_thread(server.kill)
    await asking
    path = server.directory / "journal.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


async def ends_with(server: FaultyServer, event: str) -> str:
    """Start the server; return what it says when it has ended by itself, with 1."""
    server.spawn()
    assert server.process is not None
    assert await asyncio.to_thread(server.process.wait, 30) == 1
    (line,) = server.lines(event)
    return str(line["error"])


async def test_a_file_that_is_no_database_is_refused_and_left_alone(server: FaultyServer) -> None:
    path = await leave_a_journal(server)
    overwrite(path, 0, b"x" * 16)
    before = path.read_bytes()
    assert await ends_with(server, "start_failed") == f"{path}: file is not a database"
    assert path.read_bytes() == before


async def test_a_file_that_was_cut_is_refused(server: FaultyServer) -> None:
    path = await leave_a_journal(server)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2 // 4096 * 4096)
    assert "malformed" in await ends_with(server, "start_failed")


@pytest.mark.parametrize("place", ["request", "result"])
async def test_a_commit_that_was_overwritten_is_named_and_none_is_passed_over(
    server: FaultyServer, place: str
) -> None:
    """Though what is there now could have been appended as well."""
    path = await leave_a_journal(server)
    found = [each.start() for each in re.finditer(b"the text of request 7,", path.read_bytes())]
    overwrite(path, found[0 if place == "request" else -1], b"THE TEXT")
    assert "is damaged" in await ends_with(server, "part_failed")
    assert_kept(path)


async def test_a_commit_that_is_missing_is_named_and_none_is_passed_over(
    server: FaultyServer,
) -> None:
    path = await leave_a_journal(server)
    with closing(sqlite3.connect(path)) as database:
        database.execute("DELETE FROM log WHERE key = (SELECT min(key) + 1 FROM log)")
        database.commit()
    assert "is missing" in await ends_with(server, "part_failed")
    assert_kept(path)


def assert_kept(path: Path) -> None:
    """Assert that no log was given up."""
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT 1 FROM owners WHERE forgotten").fetchone() is None
