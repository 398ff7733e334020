"""The disk of the database is full: the server waits until there is room and a database again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.client import connect
from tests.faults.disk import SmallDisk
from tests.faults.server import FaultyServer
from tests.mongo import MongoDaemon
from tests.server_process import token

REQUESTS = 30
BIG = "x" * 400_000
"""All of them need more than the 10 MiB that the database has taken beforehand."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "disk", mebibytes=256)
    yield disk
    disk.unmount()


@pytest.fixture
def daemon(disk: SmallDisk) -> Iterator[MongoDaemon]:
    daemon = MongoDaemon(disk.path)
    daemon.start()
    yield daemon
    daemon.close()


@pytest.fixture
def server(tmp_path: Path, daemon: MongoDaemon) -> Iterator[FaultyServer]:
    server = FaultyServer(tmp_path, daemon.url("faults"), {"FAULTS_QUICK": "1"})
    server.start()
    yield server
    server.close()


async def test_a_database_with_a_full_disk_is_waited_for(
    server: FaultyServer, disk: SmallDisk, daemon: MongoDaemon
) -> None:
    """It has to be restarted, as its engine gives up for good; the server has not."""
    disk.fill()
    async with connect(server.url, token=token) as session:
        handles = [session.request("echo", text=BIG) for _ in range(REQUESTS)]
        await server.until_readiness("journal_unavailable")
        disk.free()
        await daemon.restart()
        for n, handle in enumerate(handles, start=1):
            assert await handle == BIG
            assert handle.n == n
    await server.until_readiness()
