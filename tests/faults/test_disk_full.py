"""The disk of the journal is full, or read-only: nothing new is accepted, nothing is lost."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.faults.disk import SmallDisk
from tests.faults.server import FaultyServer
from tests.raw import RawClient, raw

BIG = {"text": "x" * 50_000}
"""Needs room that no file has yet."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "disk", mebibytes=4)
    yield disk
    disk.unmount()


@pytest.fixture
def server(disk: SmallDisk, tmp_path: Path) -> Iterator[FaultyServer]:
    server = FaultyServer(tmp_path, f"sqlite:///{disk.path / 'journal.db'}")
    yield server
    server.close()


@asynccontextmanager
async def full_disk(server: FaultyServer, disk: SmallDisk) -> AsyncIterator[tuple[RawClient, str]]:
    """Fill the disk while one request runs and another is on its way; give client and session.

    `running` ends when there is a file `gate`.
    """
    await server.astart()
    async with raw(server.url) as client:
        session = (await client.hello())["session"]
        directory = server.directory
        params = {"path": str(directory / "ran"), "gate": str(directory / "gate")}
        await client.request("running", "append", params=params)
        await client.next("accepted", "running")
        disk.fill()
        await client.request("waiting", params=BIG)
        await server.until_readiness("journal_unavailable")
        yield client, session


async def test_a_full_disk_refuses_further_requests(server: FaultyServer, disk: SmallDisk) -> None:
    async with full_disk(server, disk) as (client, _):
        await client.request("more", params=BIG)
        refused = await client.next("error", "more")
        assert (refused["code"], refused["retryable"]) == ("journal_unavailable", True)
        (line,) = server.lines("journal_unavailable")
        assert "database or disk is full" in line["error"]


async def test_what_ran_or_was_on_its_way_ends_when_a_full_disk_has_room(
    server: FaultyServer, disk: SmallDisk
) -> None:
    async with full_disk(server, disk) as (client, _):
        (server.directory / "gate").touch()
        await client.next("result", "running")
        disk.free()
        await client.all_of(("done", "running"), ("accepted", "waiting"), ("done", "waiting"))
        await server.until_readiness()
        await client.request("after", params=BIG)
        await client.next("done", "after")


async def test_a_server_killed_with_a_full_disk_has_all_that_it_accepted(
    server: FaultyServer, disk: SmallDisk
) -> None:
    async with full_disk(server, disk) as (_, session):
        await asyncio.to_thread(server.kill)
    disk.free()
    await server.astart()
    (server.directory / "gate").touch()
    async with raw(server.url) as client:
        welcome = await client.hello(session=session)
        assert [r["id"] for r in welcome["requests"]] == ["running"]
        await client.request("waiting", params=BIG)
        await client.all_of(("done", "running"), ("done", "waiting"))


async def test_a_start_on_a_full_disk_ends_with_its_reason_and_harms_nothing(
    server: FaultyServer, disk: SmallDisk
) -> None:
    async with full_disk(server, disk) as (_, session):
        await asyncio.to_thread(server.kill)
    disk.fill()
    server.spawn()
    assert server.process is not None
    assert server.process.wait(30) == 1
    (line,) = server.lines("start_failed")
    assert "full" in line["error"]
    disk.free()
    await server.astart()
    async with raw(server.url) as client:
        welcome = await client.hello(session=session)
        assert [r["id"] for r in welcome["requests"]] == ["running"]


def test_a_first_start_on_a_full_disk_names_the_file(server: FaultyServer, disk: SmallDisk) -> None:
    disk.fill()
    server.spawn()
    assert server.process is not None
    assert server.process.wait(30) == 1
    (line,) = server.lines("start_failed")
    assert line["error"] == (
        f"cannot write the lock file {disk.path / 'journal.db-lock'}: No space left on device"
    )


async def test_a_start_on_a_read_only_disk_ends_with_its_reason_and_harms_nothing(
    server: FaultyServer, disk: SmallDisk
) -> None:
    async with full_disk(server, disk) as (_, session):
        await asyncio.to_thread(server.kill)
    disk.free()
    disk.make_read_only()
    server.spawn()
    assert server.process is not None
    assert server.process.wait(30) == 1
    (line,) = server.lines("start_failed")
    assert "Read-only file system" in line["error"]
    disk.make_writable()
    await server.astart()
    async with raw(server.url) as client:
        welcome = await client.hello(session=session)
        assert [r["id"] for r in welcome["requests"]] == ["running"]
