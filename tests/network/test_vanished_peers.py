"""A peer that is gone without a word: its link is cut, and neither end is told.

Client and server are two machines (cable.py). The server looks for silent peers, the client for a
silent server; both look sooner here than they do by themselves, unless --patient is given.
"""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol import client_link
from protocol.client import Session, connect
from tests.network.cable import Cable
from tests.network.conftest import HANDLERS, ServerAt, chosen, unharmed
from tests.network.wire import Wire
from tests.raw import online
from tests.server_process import ServerProcess, token, unique

KEEPALIVE = "no answer to a ping"
SOONER = {"ping_interval": 0.5, "ping_timeout": 0.5, "close_timeout": 0.5}


@pytest.fixture
def near_server(cable: Cable, tmp_path: Path) -> Iterator[ServerAt]:
    """A server at this end of the cable, not started yet."""
    server = ServerAt(tmp_path, cable.near, handlers=HANDLERS)
    yield server
    server.close()


@pytest.fixture
def impatient(
    near_server: ServerAt, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    """Shorten the times after which silence is noticed."""
    if chosen(pytestconfig, "--patient"):
        return
    near_server.settings["handlers"] = "tests.network.impatient:handlers"
    original: Callable[..., Any] = client_link.open_websocket

    def sooner(url: str, **options: Any) -> Any:
        return original(url, **options | SOONER)

    monkeypatch.setattr(client_link, "open_websocket", sooner)


async def far_wire(host: str, port: int) -> Wire:
    """Open a WebSocket from the far end, which stays open."""
    wire = Wire(*await asyncio.open_connection(host, port))
    await wire.handshake()
    return wire


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; the test's own time-out bounds it."""
    while not condition():
        await asyncio.sleep(0.02)


def logged(server: ServerProcess, text: str) -> bool:
    return text in server.log.read_text()


@pytest.mark.usefixtures("impatient")
async def test_the_server_finds_a_client_that_vanished(cable: Cable, near_server: ServerAt) -> None:
    await near_server.astart()
    async with unharmed(near_server):
        wire = await cable.run_far(far_wire(near_server.host, near_server.port))
        await cable.run_far(wire.hello())
        cable.cut = True
        await until(lambda: logged(near_server, KEEPALIVE))
    await cable.abort_far(wire.writer)


async def test_a_session_can_be_resumed_elsewhere_while_its_old_connection_seems_alive(
    cable: Cable, near_server: ServerAt
) -> None:
    await near_server.astart()

    async def request(wire: Wire) -> dict[str, Any]:
        welcome = await wire.hello()
        wire.say(type="request", id="a", method="tally", params={"key": unique()})
        while b'"done"' not in (await wire.receive()).payload:
            pass
        return welcome

    wire = await cable.run_far(far_wire(near_server.host, near_server.port))
    welcome = await cable.run_far(request(wire))
    cable.cut = True
    async with online(near_server.url, session=welcome["session"]) as elsewhere:
        assert (await elsewhere.next("result"))["data"] == 1
        await elsewhere.next("done", "a")
        await elsewhere.request("b", "tally", params={"key": unique()})
        await elsewhere.next("done", "b")
    assert not logged(near_server, KEEPALIVE)
    await cable.abort_far(wire.writer)


@pytest.mark.usefixtures("impatient")
async def test_our_client_finds_a_server_that_vanished_and_goes_on_when_it_is_back(
    cable: Cable, near_server: ServerAt
) -> None:
    await near_server.astart()
    sessions: list[Session] = []
    key = unique()

    async def talk() -> list[int]:
        async with connect(near_server.url, token=token()) as session:
            first = await session.request("tally", key=f"{key}a")
            sessions.append(session)
            cable.cut = True
            second = await session.request("tally", key=f"{key}b")
            return [first, second, session.reconnects]

    talking = asyncio.wrap_future(cable.start_far(talk()))
    await until(lambda: bool(sessions) and sessions[0].state == "offline")
    cable.cut = False
    assert await talking == [1, 1, 1]
