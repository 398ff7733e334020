"""One server, first without clients that stop reading, then with them.

    start -> settle -> steady clients: quiet -> the same with deaf clients: slow -> stop

How much memory the server may have meanwhile is `bound_bytes`, made of its settings.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Sequence
from math import ceil
from pathlib import Path
from statistics import quantiles
from typing import Final, NamedTuple

from msgspec import Raw
from msgspec.json import decode

from protocol import frames as wire
from protocol.codec import encode
from scripts.bench.servers import Server, new_secret, on_core, queue_server, token, two_cores
from scripts.bench.talk import Talk
from scripts.slowreading.clients import Deaf, Failed, Steady, connect
from server.connection import WRITE_BYTES_MAX
from server.journal.committer import COMMIT_BYTES_MAX
from server.outbox import MESSAGE_BYTES_MAX
from server.session import PIECE_BYTES
from server.settings import Settings

RESULT_BYTES: Final = 32 * 1024
SHARES: Final = {"kept": 0.25, "live": 1.0}
"""What part of the total is asked for by which method, one after the other. How much of the kept
ones is produced depends on the bounds: the live ones are the total."""
STEADY_CLIENTS: Final = 20
STEADY_PER_SECOND: Final = 500
"""Requests of all steady clients together."""
SAMPLE_SECONDS: Final = 0.05
SETTLE_SECONDS: Final = 1.0
END_SECONDS: Final = 20.0
END_FACTOR: Final = 3.0
"""A run may take so many times longer than it is to take, and so much more."""
HELD_COPIES: Final = 2
"""What is on its way into the journal is there as entries, and as the commit made of them."""
ALLOCATOR: Final = 1.25
"""What Python and the C library take for a byte that is held."""


class Load(NamedTuple):
    """`clients` stop reading while results of `total_bytes` are produced in `seconds`."""

    clients: int
    total_bytes: int
    seconds: float
    slow_consumer_seconds: float


class Outcome(NamedTuple):
    """Memory of the server in bytes: before, at its highest, and the bound; times in seconds."""

    before_bytes: int
    peak_bytes: int
    bound_bytes: int
    produced_bytes: int
    quiet_p99_seconds: float
    slow_p99_seconds: float
    disconnected: int

    @property
    def ratio(self) -> float:
        """How many times longer requests of the others took."""
        return self.slow_p99_seconds / self.quiet_p99_seconds


def bound_bytes(settings: Settings, clients: int) -> int:
    """Return how much memory so many clients that do not read may cost, beside a server at rest.

    Results that are kept are within `result_memory_bytes`. Each connection has an outbox, a
    message in the hands of the transport, and a result that came when the outbox was not yet full.
    Each session has a piece of its stream on the way into the journal, and the journal a commit.
    """
    connection = settings.outbox_bytes + MESSAGE_BYTES_MAX + WRITE_BYTES_MAX + 2 * RESULT_BYTES
    journal = HELD_COPIES * (PIECE_BYTES + RESULT_BYTES)
    held = settings.result_memory_bytes + clients * (connection + journal) + COMMIT_BYTES_MAX
    return int(ALLOCATOR * held)


def run(load: Load, directory: Path, limits: Settings | None = None) -> Outcome:
    """Measure both on a fresh server, by default with the settings it has by default.

    Raises Failed, ServerFailed, TimeoutError and OSError.
    """
    limits = limits or Settings()
    cores = two_cores()
    secret = new_secret()
    settings = {
        "journal": f"sqlite:///{directory / 'journal.db'}",
        "handlers": "scripts.slowreading.handlers:handlers",
        "slow_consumer_timeout": load.slow_consumer_seconds,
        "outbox_bytes": limits.outbox_bytes,
        "result_memory_bytes": limits.result_memory_bytes,
    }
    core = None if cores is None else cores.server
    with (
        queue_server(directory, core, secret, settings) as server,
        on_core(None if cores is None else cores.load),
    ):
        outcome = asyncio.run(_measure(server, secret, load, limits))
    log = (directory / "server.log").read_text(encoding="utf-8")
    return outcome._replace(disconnected=log.count('"code": 4413'))


async def _measure(server: Server, secret: str, load: Load, limits: Settings) -> Outcome:
    steady = [Steady(STEADY_CLIENTS / STEADY_PER_SECOND) for _ in range(STEADY_CLIENTS)]
    deaf = [Deaf() for _ in range(load.clients)]
    counts: list[Count] = []
    try:
        for number, one in enumerate(steady):
            await connect(one, server.url, token(secret, f"steady-{number}"))
        for number, client in enumerate(deaf):
            await connect(client, server.url, token(secret, f"deaf-{number}"), small_buffer=True)
        count = await Count.open(server.url, token(secret, "count"))
        counts.append(count)
        for number, one in enumerate(steady):
            one.begin(number / STEADY_PER_SECOND)
        await asyncio.sleep(SETTLE_SECONDS)
        quiet = await _seconds_of(steady, asyncio.sleep(load.seconds))
        memory = Memory(server.pid)
        slow = await _seconds_of(steady, _pour(deaf, load, count, memory))
    finally:
        for one in steady:
            one.end()
        for client in (*steady, *deaf, *counts):
            client.abort()
        await asyncio.sleep(SAMPLE_SECONDS)  # for the ends of all these
    if failed := [one.failure for one in steady if one.failure is not None]:
        raise Failed(failed[0])
    return Outcome(
        before_bytes=memory.before_bytes,
        peak_bytes=memory.peak_bytes,
        bound_bytes=memory.before_bytes + bound_bytes(limits, load.clients),
        produced_bytes=count.produced_bytes,
        quiet_p99_seconds=p99(quiet),
        slow_p99_seconds=p99(slow),
        disconnected=0,
    )


async def _seconds_of(steady: Sequence[Steady], work: Awaitable[None]) -> list[float]:
    """Return how long the requests took that ended meanwhile."""
    before = [len(one.seconds) for one in steady]
    await work
    pairs = zip(steady, before, strict=True)
    return [seconds for one, first in pairs for seconds in one.seconds[first:]]


async def _pour(deaf: Sequence[Deaf], load: Load, count: "Count", memory: "Memory") -> None:
    """Have each deaf client ask for kept results, then for live ones, and wait for the end."""
    results = load.total_bytes / (len(deaf) * RESULT_BYTES)
    seconds = load.seconds / len(SHARES)
    requests: list[wire.Request] = []
    for method, share in SHARES.items():
        params = {"count": ceil(share * results), "size": RESULT_BYTES, "seconds": seconds}
        requests.append(wire.Request(method, method, Raw(encode(params))))
    for client in deaf:
        await client.ask(requests)
    asked_at = 0.0
    async with asyncio.timeout(END_FACTOR * load.seconds + END_SECONDS):
        while count.running or count.produced_bytes < load.total_bytes:
            await asyncio.sleep(SAMPLE_SECONDS)
            memory.sample()
            if (now := time.monotonic()) > asked_at + SETTLE_SECONDS:
                asked_at = now
                await count.ask()


class Count:
    """Asks the server how much was produced."""

    def __init__(self, talk: Talk) -> None:
        self.produced_bytes = 0
        self.running = 0
        self._talk = talk
        self._asked = 0

    @classmethod
    async def open(cls, url: str, secret_token: str) -> "Count":
        """Connect."""
        talk = await Talk.open(url)
        await talk.ask([wire.Hello(token=secret_token)])
        return cls(talk)

    def abort(self) -> None:
        """End the connection at once."""
        self._talk.abort()

    async def ask(self) -> None:
        """Bring the numbers up to date."""
        self._asked += 1
        request = wire.Request(str(self._asked), "produced")
        for frame in await self._talk.ask([wire.Ack(2 * self._asked - 2), request], 3):
            if isinstance(frame, wire.Result):
                numbers = decode(bytes(frame.data))
                self.produced_bytes, self.running = numbers["bytes"], numbers["running"]


class Memory:
    """The memory of a process: now, and at its highest since."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.before_bytes = self.peak_bytes = resident_bytes(pid)

    def sample(self) -> None:
        """Look again."""
        self.peak_bytes = max(self.peak_bytes, resident_bytes(self._pid))


def resident_bytes(pid: int) -> int:
    """Return the memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def p99(seconds: Sequence[float]) -> float:
    """Return what 99 of 100 are within."""
    return quantiles(seconds, n=100)[98]
