"""RFC 6455 from the first frame to the last, over real sockets; the cases are in conformance.py.

The echo server is the product's own WebSocket layer (echo_host.py).
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.bench.framing import CLOSE, PONG, TEXT
from tests.network.conformance import CASES, LIMIT_BYTES, NORMAL, Case
from tests.network.wire import Frame, close_payload, frame, opened

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an echo server, whose log stays empty."""
    log = tmp_path_factory.mktemp("echo") / "log"
    command = ["tests.network.echo_host", "--max-message-bytes", str(LIMIT_BYTES)]
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-m", *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=errors
        ) as process,
    ):
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()
    assert log.read_text() == ""


async def answers(port: int, case: Case) -> list[Frame]:
    """Return all frames that come until the server ends the connection."""
    frames: list[Frame] = []
    async with asyncio.timeout(30), opened(port) as wire:
        sending = asyncio.create_task(wire.write_in_chops(case.sent, case.chop or len(case.sent)))
        if case.client_closes:
            while len(frames) < len(case.frames):
                frames.append(await wire.receive())
            await sending
            wire.send(CLOSE, close_payload(NORMAL))
        frames += await wire.receive_all()
        await sending
    return frames


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_case(port: int, case: Case) -> None:
    *frames, close = await answers(port, case)
    assert close.opcode == CLOSE
    assert close.close_code == case.code
    assert frames == list(case.frames)


# What is sent before a failure


@pytest.mark.parametrize(
    "wrong", [frame(3), frame(TEXT, rsv=1), frame(TEXT, b"\xff"), frame(TEXT, mask=None)]
)
async def test_what_came_before_a_failure_was_answered(port: int, wrong: bytes) -> None:
    async with opened(port) as wire:
        wire.send(TEXT, b"fine")
        assert await wire.receive() == Frame(TEXT, b"fine")
        wire.write(wrong)
        (close,) = await wire.receive_all()
        assert close.opcode == CLOSE


async def test_a_reason_comes_back_as_it_was(port: int) -> None:
    async with opened(port) as wire:
        wire.send(CLOSE, close_payload(NORMAL, b"until tomorrow"))
        assert await wire.receive_all() == [Frame(CLOSE, close_payload(NORMAL, b"until tomorrow"))]


async def test_a_ping_is_answered_while_a_message_is_on_its_way(port: int) -> None:
    async with opened(port) as wire:
        wire.write(frame(TEXT, b"begun", fin=False) + frame(9, b"alive?"))
        assert await wire.receive() == Frame(PONG, b"alive?")


def test_there_are_as_many_cases_as_said() -> None:
    assert len(CASES) >= 500
    assert len({case.name for case in CASES}) == len(CASES)
