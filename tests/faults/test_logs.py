"""Nobody takes the log any more: the server goes on without it."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.disk import SmallDisk
from tests.faults.server import FaultyServer
from tests.faults.shim import Machine
from tests.raw import raw


class PipedServer(FaultyServer):
    """Its log goes into a pipe, whose other end is closed when the server is ready."""

    def spawn(self) -> None:
        reader, writer = os.pipe()
        self.spawn_with(writer)
        os.close(writer)
        self._reader = reader

    def start(self) -> None:
        super().start()
        os.close(self._reader)


class DiskServer(FaultyServer):
    """Its log is a file on a disk of its own, which is full when the server is ready."""

    def __init__(self, directory: Path, disk: SmallDisk, **more: object) -> None:
        super().__init__(directory, **more)  # type: ignore[arg-type]
        self.log = disk.path / "server.log"
        self._disk = disk

    def start(self) -> None:
        super().start()
        self._disk.fill()
        with suppress(OSError), self.log.open("ab", buffering=0) as log:
            while True:
                log.write(b"\n")  # the room behind its last line


@pytest.fixture(params=["closed pipe", "full disk"])
def server(
    request: pytest.FixtureRequest, tmp_path: Path, machine: Machine
) -> Iterator[FaultyServer]:
    variables = machine.environment | {"FAULTS_QUICK": "1"}
    disk: SmallDisk | None = None
    if request.param == "full disk":
        disk = SmallDisk(tmp_path / "disk", 1)
        server: FaultyServer = DiskServer(tmp_path, disk, variables=variables)
    else:
        server = PipedServer(tmp_path, variables=variables)
    yield server
    server.close()
    if disk is not None:
        disk.unmount()


async def test_a_server_that_cannot_log_works_on(server: FaultyServer, machine: Machine) -> None:
    """Whatever it has to say, an outage of the journal for example."""
    await server.astart()
    async with raw(server.url) as client:
        await client.hello()
        await client.request("failing", "fail", params={"crash": True})
        assert (await client.next("error", "failing"))["code"] == "handler_error"
        machine.set(write_errno=5)
        await client.request("waiting", params={"text": "x"})
        await server.until_readiness("journal_unavailable")
        machine.set(write_errno=0)
        await client.next("done", "waiting")
        await client.send({"type": "bye"})
        assert (await client.closed())[0] == 1000


async def test_a_server_that_cannot_log_stops_in_good_order(server: FaultyServer) -> None:
    await server.astart()
    assert await asyncio.to_thread(server.terminate) == 0
