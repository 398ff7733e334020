"""scripts/benchmark.py: it runs from start to end, and a server that breaks a promise is caught."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from protocol import frames as wire
from protocol.codec import decode_client_message, encode
from scripts.bench.load import (
    Dialect,
    Echo,
    Measurement,
    Point,
    Queue,
    Requests,
    Violation,
    measure,
)
from scripts.bench.report import Row, Run, table, targets
from scripts.bench.websocket import ConnectionFailed

ROOT = Path(__file__).parents[2]
FAULT_AT = 5
"""The reply with which a faulty server goes wrong, counted from 1 on each connection."""


def lose(number: int, reply: bytes) -> list[bytes]:
    return [] if number == FAULT_AT else [reply]


def repeat(number: int, reply: bytes) -> list[bytes]:
    return [reply, reply] if number == FAULT_AT else [reply]


def change(number: int, reply: bytes) -> list[bytes]:
    return [reply.replace(b"not to be", b"not to bee")] if number == FAULT_AT else [reply]


def fall_silent(number: int, reply: bytes) -> list[bytes]:
    return [reply] if number < FAULT_AT else []


def keep(number: int, reply: bytes) -> list[bytes]:
    return [reply]


Fault = Callable[[int, bytes], list[bytes]]


@asynccontextmanager
async def bare(fault: Fault) -> AsyncIterator[str]:
    """Run an echo server whose replies go through `fault`."""

    async def handle(connection: ServerConnection) -> None:
        number = 0
        with suppress(ConnectionClosed):  # by a load that saw enough
            async for message in connection:
                number += 1
                assert isinstance(message, str)
                for reply in fault(number, message.encode()):
                    await connection.send(reply, text=True)

    async with serve(handle, "127.0.0.1", 0, compression=None) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def queue(fault: Fault, kind: str) -> AsyncIterator[str]:
    """Speak `queuesystem.v1`; the frames of one kind (`done`, ...) go through `fault`."""

    async def handle(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(encode(WELCOME), text=True)
        number = 0
        with suppress(ConnectionClosed):  # by a load that saw enough
            async for message in connection:
                assert isinstance(message, str)
                for frame in decode_client_message(message):
                    if isinstance(frame, wire.Bye):
                        return
                    if isinstance(frame, wire.Request):
                        number += 1
                        for tag, reply in replies(number, frame):
                            for one in fault(number, reply) if tag == kind else [reply]:
                                await connection.send(one, text=True)

    async with serve(handle, "127.0.0.1", 0, compression=None) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


WELCOME = wire.Welcome(
    session="s",
    resumed=False,
    epoch="e",
    seq=0,
    requests=[],
    expires_at=0,
    limits=wire.Limits(64, 2**20, 2**20, 60),
    server=wire.ServerInfo("fake", "0"),
)


def replies(n: int, request: wire.Request) -> list[tuple[str, bytes]]:
    """Return what `echo` answers, as the n-th request of a session."""
    text = msgspec.json.decode(request.params, type=dict[str, msgspec.Raw])["text"]
    return [
        ("accepted", encode(wire.Accepted(request.id, n))),
        ("result", encode(wire.Result(request.id, 1, 0, text, 2 * n - 1))),
        ("done", encode(wire.Done(request.id, 2 * n, 1, 1))),
    ]


async def load(url: str, make: Callable[[Requests], Dialect], window: int = 3) -> Measurement:
    requests = Requests()
    return await measure(
        url,
        [make(requests) for _ in range(2)],
        window,
        warm_up_seconds=0.05,
        seconds=0.1,
        drain_seconds=0.2,
    )


def speak_queue(requests: Requests) -> Dialect:
    return Queue(requests, "token")


async def test_honest_servers_are_measured() -> None:
    """Replies that are all there make a measurement."""
    async with bare(keep) as url:
        assert (await load(url, Echo)).requests > FAULT_AT
    async with queue(keep, "done") as url:
        measured = await load(url, speak_queue)
    assert measured.requests > FAULT_AT
    assert 0 < measured.p50_seconds <= measured.p99_seconds


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("fault", [lose, repeat, change, fall_silent])
async def test_fault_of_echo_is_found(fault: Fault, window: int) -> None:
    """An echo that is lost, sent twice, changed or withheld is a violation."""
    async with bare(fault) as url:
        with pytest.raises(Violation):
            await load(url, Echo, window)


@pytest.mark.parametrize("kind", ["accepted", "result", "done"])
@pytest.mark.parametrize("fault", [lose, repeat])
async def test_fault_of_queue_is_found(fault: Fault, kind: str) -> None:
    """A frame of any kind that is lost or sent twice is a violation."""
    async with queue(fault, kind) as url:
        with pytest.raises(Violation):
            await load(url, speak_queue)


async def test_changed_result_is_found() -> None:
    """A result with other data than was asked for is a violation."""
    async with queue(change, "result") as url:
        with pytest.raises(Violation):
            await load(url, speak_queue)


async def test_missing_replies_are_counted() -> None:
    """When replies stop coming, the requests without one are counted."""
    async with bare(fall_silent) as url:
        with pytest.raises(Violation, match="6 requests are without a reply"):
            await load(url, Echo, window=3)


async def test_lost_connection_is_no_measurement() -> None:
    """A connection that ends under load ends the measurement."""

    async def hang_up(connection: ServerConnection) -> None:
        await connection.recv()

    async with serve(hang_up, "127.0.0.1", 0, compression=None) as server:
        with pytest.raises(ConnectionFailed, match="1000"):
            await load(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", Echo)


def test_busy_load_generator_is_told() -> None:
    """A row that says more about the load than about the servers is marked."""

    def run(load_cpu: float) -> Run:
        return Run(Measurement(1000, 1.0, 0.001, 0.002, load_cpu), 0.5)

    honest = Row.of(Point(50, 16), [(run(0.5), run(0.5))])
    limited = Row.of(Point(50, 16), [(run(0.95), run(0.5))])
    assert "limited by the load generator" not in table([honest])
    assert "limited by the load generator" in table([limited])
    (target,) = targets([honest], fdatasync_seconds=0.001)
    assert not target.met
    assert target.measured == "1.00"


@pytest.mark.timeout(120)
def test_whole_run(tmp_path: Path) -> None:
    """The command compares both servers, says so in text and JSON, and leaves nothing behind."""
    result = tmp_path / "result.json"
    directory = tmp_path / "directory"
    directory.mkdir()
    ran = subprocess.run(
        [
            sys.executable,
            ROOT / "scripts" / "benchmark.py",
            *("--points", "1x1,3x4", "--seconds", "0.3", "--warm-up", "0.1", "--repeat", "1"),
            *("--directory", directory, "--json", result),
        ],
        cwd=tmp_path,
        env=os.environ | {"QUEUESYSTEM_PORT": "1"},  # not the benchmark's business
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "ratios matter" in ran.stdout.splitlines()[0]
    assert "3x4" in ran.stdout
    found = json.loads(result.read_text())
    assert [(p["connections"], p["window"]) for p in found["points"]] == [(1, 1), (3, 4)]
    for point in found["points"]:
        assert point["echo"]["rate"] > 0
        assert point["ours"]["rate"] > 0
    assert len(found["targets"]) == 1  # the round trip; 50x16 was not measured
    assert not list(directory.iterdir())
