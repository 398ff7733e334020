"""Processes and threads of handlers that die, or that the system does not give."""

import asyncio
import errno
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.server import POLL_SECONDS, FaultyServer
from tests.faults.shim import Machine
from tests.raw import RawClient, online


async def logged(server: FaultyServer, event: str) -> None:
    """Wait until the server has logged that."""
    while not server.lines(event):
        await asyncio.sleep(POLL_SECONDS)


async def process_of(server: FaultyServer, client: RawClient, number: int) -> int:
    """Return the process in which the attempt `number` of `in_process` runs."""
    path = server.directory / "processes"
    if number == 1:
        params = {"path": str(path), "gate": str(server.directory / "gate")}
        await client.request("1", "in_process", params=params)
    while not path.exists() or path.read_text().count("\n") < number:
        await asyncio.sleep(POLL_SECONDS)
    return int(path.read_text().split()[-1])


async def death(process: int) -> None:
    """Wait until the process has died, whether or not its parent has taken note."""
    status = Path(f"/proc/{process}/status")
    with suppress(OSError):
        while "zombie" not in status.read_text():
            await asyncio.sleep(POLL_SECONDS)


async def test_a_request_whose_process_is_killed_runs_again_in_another(
    server: FaultyServer,
) -> None:
    async with online(server.url) as client:
        first = await process_of(server, client, 1)
        os.kill(first, signal.SIGKILL)
        assert await process_of(server, client, 2) != first
        (server.directory / "gate").touch()
        assert (await client.next("result"))["data"] == 2
        assert (await client.next("done"))["attempt"] == 2
        assert len(server.lines("process_died")) == 1


async def test_the_death_of_an_idle_process_is_noticed_by_nobody(server: FaultyServer) -> None:
    async with online(server.url) as client:
        (server.directory / "gate").touch()
        first = await process_of(server, client, 1)
        await client.next("done")
        os.kill(first, signal.SIGKILL)
        await death(first)
        await client.request("2", "sha256", params={"text": "x"})
        assert (await client.next("done"))["attempt"] == 1


@pytest.mark.parametrize(
    ("method", "fault", "event"),
    [
        ("sha256", "fork_errno", "process_not_started"),
        ("in_thread", "thread_errno", "thread_not_started"),
    ],
)
async def test_a_request_waits_when_the_system_gives_no_process_or_thread(
    server: FaultyServer, machine: Machine, method: str, fault: str, event: str
) -> None:
    """Others are not held up by it."""
    async with online(server.url) as client, online(server.url) as another:
        machine.set(**{fault: errno.EAGAIN})
        params = {"text": "x"} if method == "sha256" else {}
        await client.request("1", method, params=params)
        await logged(server, event)
        await another.request("2", params={"text": "x"})
        await another.next("done", "2")
        machine.set(**{fault: 0})
        assert (await client.next("done", "1"))["attempt"] == 1
