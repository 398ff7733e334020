"""Servers for tests of the network, and the options for what takes longer than CI may."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from server.connection import CLOSE_SECONDS
from tests.network.cable import Cable, NoCable
from tests.raw import RawClient, online
from tests.server_process import ServerProcess, token, unique

HANDLERS = "tests.network.handlers:handlers"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("network")
    group.addoption(
        "--every-byte", action="store_true", help="cut connections at every byte, not every 7th"
    )
    group.addoption(
        "--patient", action="store_true", help="wait for real pings (40 s), use longer lossy links"
    )


def chosen(config: pytest.Config, option: str) -> bool:
    """Tell whether an option was given; pytest knows it only when called for this folder."""
    return bool(config.getoption(option, False))


class ServerAt(ServerProcess):
    """A server that listens on an address other than that of the loopback."""

    def __init__(self, directory: Path, host: str, **settings: Any) -> None:
        super().__init__(directory, host=host, **settings)
        self.host = host

    @property
    def url(self) -> str:
        return f"ws://{self.host}:{self.port}/ws"

    @property
    def http(self) -> str:
        return f"http://{self.host}:{self.port}"


@pytest.fixture
async def cable() -> AsyncIterator[Cable]:
    """A cable to another machine; without root, TUN or `ip` the test is skipped."""
    try:
        async with Cable() as cable:
            yield cable
    except NoCable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server of the test's own, not started yet; its `settings` may be changed before."""
    server = ServerProcess(tmp_path, handlers=HANDLERS)
    yield server
    server.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server, shared by the tests of a module."""
    server = ServerProcess(tmp_path_factory.mktemp("server"), handlers=HANDLERS)
    server.start()
    yield server
    server.close()


def complaints(server: ServerProcess) -> list[str]:
    """Return the lines of the server's log that tell of a failure of its own."""
    return [line for line in server.log.read_text().splitlines() if _complains(line)]


def _complains(line: str) -> bool:
    try:
        entry = json.loads(line)
    except ValueError:
        return True  # a traceback of something that does not know our log
    return entry["level"] in {"error", "critical"} or "exception" in entry


@asynccontextmanager
async def unharmed(server: ServerProcess) -> AsyncIterator[None]:
    """Hold that what happens inside leaves nothing behind in the server.

    A client that is online all the while is served, tasks and sockets are as many afterwards as
    before, and the log complains of nothing.
    """
    async with online(server.url, token=token("bystander")) as bystander:
        before = await ask(bystander, "census")
        yield
        # A connection ends in its own time: a peer that is gone is waited for no longer than this.
        deadline = time.monotonic() + CLOSE_SECONDS + 10
        while (after := await ask(bystander, "census")) != before:
            assert time.monotonic() < deadline, f"left behind: {before} before, {after} after"
            await asyncio.sleep(0.02)
    assert complaints(server) == []


async def ask(client: RawClient, method: str, **params: Any) -> Any:
    """Run a request to its end, acknowledge it, and return its result."""
    await client.request(id_ := unique(), method, params=params)
    result = await client.next("result", id_)
    done = await client.next("done", id_)
    await client.send({"type": "ack", "seq": done["seq"]})
    return result["data"]
