"""The terminal is closed: an orderly stop, unless the server was told not to care."""

import asyncio
import signal
from pathlib import Path

import pytest

from tests.faults.server import FaultyServer
from tests.raw import online, raw


def hang_up(server: FaultyServer) -> None:
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


async def test_a_hangup_lets_running_requests_end_however_often_it_comes(
    tmp_path: Path, gate: Path
) -> None:
    server = FaultyServer(tmp_path)
    try:
        await server.astart()
        assert server.process is not None
        async with raw(server.url) as client:
            await client.hello(started=True)
            params = {"path": str(tmp_path / "ran"), "gate": str(gate)}
            await client.request("1", "append", params=params)
            await client.next("started")
            hang_up(server)
            await client.next("goaway")
            hang_up(server)
            gate.touch()
            await client.next("done", "1")
        assert await asyncio.to_thread(server.process.wait, 30) == 0
    finally:
        server.close()


async def test_a_server_under_nohup_does_not_care_about_a_hangup(tmp_path: Path) -> None:
    server = FaultyServer(tmp_path, behind="trap '' HUP")
    try:
        await server.astart()
        async with online(server.url) as client:
            hang_up(server)
            await client.request("1", params={"text": "x"})
            await client.next("done", "1")
        assert await asyncio.to_thread(server.terminate) == 0
        assert len(server.lines("draining")) == 1
    finally:
        server.close()
