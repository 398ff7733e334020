"""The database of the journal is away while clients work: they wait, and nothing is lost."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol.client import connect
from tests.faults.proxy import Network
from tests.faults.server import FaultyServer
from tests.mongo import MongoDaemon
from tests.raw import raw
from tests.server_process import token

SESSIONS = 4
WINDOW = 16


@pytest.fixture
def outage_seconds(request: pytest.FixtureRequest) -> float:
    return float(request.config.getoption("outage_seconds", 0))


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[MongoDaemon]:
    daemon = MongoDaemon(tmp_path)
    daemon.start()
    yield daemon
    daemon.close()


@pytest.fixture
async def network(daemon: MongoDaemon) -> AsyncIterator[Network]:
    network = Network(daemon.port)
    await network.start()
    yield network
    await network.cut()


@pytest.fixture
def server(
    tmp_path: Path, daemon: MongoDaemon, network: Network, outage_seconds: float
) -> Iterator[FaultyServer]:
    quick = {} if outage_seconds else {"FAULTS_QUICK": "1"}
    server = FaultyServer(tmp_path, network.url(daemon.url("faults")), quick, window=WINDOW)
    yield server
    server.close()


class Load:
    """Sessions that work until they are told to stop; each checks its answers and their order."""

    def __init__(self, server: FaultyServer) -> None:
        self.done = 0
        self._server = server
        self._stopping = False
        self._changed = asyncio.Event()

    async def run(self) -> None:
        await asyncio.gather(*(self._work(f"user{number}") for number in range(SESSIONS)))

    async def _work(self, subject: str) -> None:
        async with connect(self._server.url, token=lambda: token(subject)) as session:
            sent = 0
            waiting: list[Any] = []
            while waiting or not self._stopping:
                while len(waiting) < WINDOW and not self._stopping:
                    waiting.append(session.request("echo", text=sent))
                    sent += 1
                handle = waiting.pop(0)
                assert await handle == sent - len(waiting) - 1
                self.done += 1
                self._changed.set()
            assert handle.n == sent, "one was lost, or ran twice"

    async def more(self, count: int) -> None:
        """Wait until so many more were done."""
        goal = self.done + count
        while self.done < goal:
            self._changed.clear()
            await self._changed.wait()

    def stop(self) -> None:
        self._stopping = True


async def away(kind: str, daemon: MongoDaemon, network: Network) -> None:
    assert daemon.process is not None
    match kind:
        case "cut off":
            await network.cut()
        case "silent":
            network.hang()
        case "stopped":
            daemon.process.send_signal(signal.SIGSTOP)
        case "killed":
            await asyncio.to_thread(daemon.kill)


async def back(kind: str, daemon: MongoDaemon, network: Network) -> None:
    assert daemon.process is not None
    match kind:
        case "stopped":
            daemon.process.send_signal(signal.SIGCONT)
        case "killed":
            await daemon.astart()
        case _:
            await network.repair()


@pytest.mark.parametrize("kind", ["cut off", "killed", "silent", "stopped"])
async def test_an_outage_of_the_database_is_waited_for(
    kind: str,
    server: FaultyServer,
    daemon: MongoDaemon,
    network: Network,
    outage_seconds: float,
) -> None:
    await server.astart()
    load = Load(server)
    working = asyncio.create_task(load.run())
    await load.more(200)
    async with raw(server.url) as client:
        await client.hello()
        gate = server.directory / "gate"
        params = {"path": str(server.directory / "ran"), "gate": str(gate)}
        await client.request("running", "append", params=params)
        await client.next("accepted", "running")
        await away(kind, daemon, network)
        await server.until_readiness("journal_unavailable")
        await client.request("refused", params={"text": "x"})
        assert (await client.next("error", "refused"))["code"] == "journal_unavailable"
        gate.touch()
        await client.next("result", "running")  # what runs goes on
        await asyncio.sleep(outage_seconds)  # as long as the caller wants: nothing is waited for
        await back(kind, daemon, network)
        await client.next("done", "running")
        await server.until_readiness()
    await load.more(200)
    load.stop()
    await working


async def test_a_slow_database_makes_larger_commits_and_loses_nothing(
    server: FaultyServer, network: Network
) -> None:
    await server.astart()
    network.delay_seconds = 0.1
    load = Load(server)
    working = asyncio.create_task(load.run())
    await load.more(3 * SESSIONS * WINDOW)
    assert (await asyncio.to_thread(server.readiness))[0] == 200
    load.stop()
    await working
