"""`--replace`: a new server starts beside the old one, and no client is turned away."""

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from protocol.client import connect
from protocol.codes import CloseCode
from scripts.ports import free_port
from server import predecessor
from tests.raw import online, raw
from tests.server_process import ServerProcess, token

on_sqlite = pytest.mark.parametrize("server", ["sqlite"], indirect=True)
"""For what has nothing to do with the journal."""
VISITORS = 8
"""They connect at the same time, again and again."""
VISITS = 10
"""So many more each, once the new server is ready."""


def successor(server: ServerProcess, pid: int | None = None) -> ServerProcess:
    """Return a server, not started yet, that replaces `server`, or process `pid`."""
    assert server.process is not None
    settings = {**server.settings, "replace": pid or server.process.pid}
    made = ServerProcess(server.directory, server.journal, **settings)
    made.port = server.port
    return made


def process(program: str, *arguments: str) -> "subprocess.Popen[bytes]":
    """Start a Python program that is no server of ours."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


async def ended(server: ServerProcess) -> int:
    assert server.process is not None
    return await asyncio.to_thread(server.process.wait, 60)


async def visit(url: str) -> None:
    """Connect, have a request done, and leave. Raises whatever a refused or cut off client sees."""
    while True:
        try:
            async with online(url) as client:
                await client.request("a", params={"text": "x"})
                await client.next("done", "a")
                await client.send({"type": "bye"})
                await client.closed()
                return
        except ConnectionClosed as closed:
            if closed.rcvd is None or closed.rcvd.code != CloseCode.RESTART:
                raise


async def test_nobody_is_refused_or_cut_off(server: ServerProcess) -> None:
    await server.astart()
    ready = asyncio.Event()

    async def visitor() -> None:
        while not ready.is_set():
            await visit(server.url)
        for _ in range(VISITS):
            await visit(server.url)

    new = successor(server)
    try:
        async with asyncio.TaskGroup() as visitors:
            for _ in range(VISITORS):
                visitors.create_task(visitor())
            new.spawn()
            assert await ended(server) == 0
            await asyncio.to_thread(new.wait_ready)
            ready.set()
    finally:
        new.close()


@on_sqlite
async def test_a_session_goes_on_and_no_request_runs_twice(
    server: ServerProcess, tmp_path: Path
) -> None:
    await server.astart()
    runs = tmp_path / "runs"
    new = successor(server)
    try:
        async with connect(server.url, token=token()) as session:
            new.spawn()
            count = 0
            while session.reconnects == 0 or count < VISITS:
                await session.request("append", path=str(runs))
                count += 1
        assert [line.split()[1] for line in runs.read_text().splitlines()] == ["1"] * count
        assert await ended(server) == 0
    finally:
        new.close()


@on_sqlite
async def test_who_comes_while_the_old_server_drains_waits_for_the_new_one(
    server: ServerProcess, tmp_path: Path
) -> None:
    server.settings["drain_timeout"] = 60
    await server.astart()
    gate = tmp_path / "gate"
    new = successor(server)
    try:
        async with raw(server.url) as client:
            await client.hello(started=True)
            params = {"path": str(tmp_path / "runs"), "gate": str(gate)}
            await client.request("a", "append", params=params)
            await client.next("started")
            new.spawn()
            await client.next("goaway")
            visiting = asyncio.create_task(visit(server.url))
            gate.touch()
            await client.next("done", "a")
        await visiting
        assert await ended(server) == 0
    finally:
        new.close()


@on_sqlite
async def test_a_replacement_can_be_replaced(server: ServerProcess) -> None:
    await server.astart()
    second = successor(server)
    second.spawn()
    assert await ended(server) == 0
    await asyncio.to_thread(second.wait_ready)
    third = successor(second)
    third.spawn()
    try:
        assert await ended(second) == 0
        await asyncio.to_thread(third.wait_ready)
        await visit(third.url)
    finally:
        second.close()
        third.close()


@on_sqlite
async def test_a_process_that_is_not_the_server_is_left_alone(server: ServerProcess) -> None:
    await server.astart()
    other = process("input()")
    new = successor(server, pid=other.pid)
    new.log = server.directory / "new.log"
    try:
        new.spawn()
        assert await ended(new) == 1
        assert f"process {other.pid} does not listen on port {server.port}" in new.log.read_text()
        other.communicate(b"\n")
        assert other.returncode == 0
        await visit(server.url)
    finally:
        new.close()
        other.kill()
        other.communicate()


@on_sqlite
async def test_a_process_that_is_gone_is_named(server: ServerProcess) -> None:
    gone = process("")
    gone.communicate()
    await server.astart()
    new = successor(server, pid=gone.pid)
    new.log = server.directory / "new.log"
    new.spawn()
    assert await ended(new) == 1
    assert f"cannot replace process {gone.pid}: No such process" in new.log.read_text()
    await visit(server.url)


_STUBBORN = """
import signal, socket, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
print("listening", flush=True)
input()
"""


async def test_an_old_server_that_does_not_end_keeps_its_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(predecessor, "STRAGGLERS_SECONDS", 0)
    monkeypatch.setattr(predecessor, "SPARE_SECONDS", 0)
    port = free_port()
    with process(_STUBBORN, str(port)) as old:
        assert old.stdout is not None
        old.stdout.readline()
        with pytest.raises(TimeoutError, match=f"process {old.pid} has not ended"):
            await predecessor.replace(old.pid, "127.0.0.1", port, 0.01)
        socket.create_connection(("127.0.0.1", port)).close()
        old.communicate(b"\n")
        assert old.returncode == 0
