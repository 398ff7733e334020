"""SIGTERM: say goaway, let running requests end, keep the rest, close with 1012, exit 0."""

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from server.app import RECONNECTS_PER_SECOND
from tests.raw import raw
from tests.server_process import ServerProcess


@pytest.fixture
def server(own_server: ServerProcess) -> ServerProcess:
    own_server.settings["drain_timeout"] = 20
    return own_server


def terminate(server: ServerProcess) -> None:
    assert server.process is not None
    server.process.send_signal(signal.SIGTERM)


async def exit_code(server: ServerProcess) -> int:
    assert server.process is not None
    return await asyncio.to_thread(server.process.wait, 60)


async def test_a_running_request_ends_before_the_server_does(
    server: ServerProcess, tmp_path: Path
) -> None:
    server.start()
    gate = tmp_path / "gate"
    async with raw(server.url) as client:
        await client.hello(started=True)
        params = {"path": str(tmp_path / "runs"), "gate": str(gate)}
        await client.request("a", "append", params=params)
        await client.next("started")
        terminate(server)
        goaway = await client.next("goaway")
        assert goaway["reason"] == "restart"
        assert goaway["reconnect_after"] >= 0
        gate.touch()
        await client.next("done", "a")
        code, reason = await client.closed()
        assert (code, reason.partition(":")[0]) == (1012, "restart")
    assert await exit_code(server) == 0


async def test_what_waited_runs_after_the_next_start_for_the_first_time(
    server: ServerProcess, tmp_path: Path
) -> None:
    server.start()
    gate, runs = tmp_path / "gate", tmp_path / "runs"
    async with raw(server.url) as client:
        welcome = await client.hello(started=True)
        for id_ in ("a", "b"):
            await client.request(id_, "append", params={"path": str(runs), "gate": str(gate)})
        await client.all_of(("started", "a"), ("accepted", "b"))
        terminate(server)
        await client.next("goaway")
        gate.touch()
        await client.closed()
    assert await exit_code(server) == 0
    assert runs.read_text() == "a 1\n"
    await server.astart()
    async with raw(server.url) as client:
        await client.hello(session=welcome["session"])
        assert (await client.next("done", "b"))["attempt"] == 1
    assert runs.read_text() == "a 1\nb 1\n"


async def test_what_is_accepted_while_it_drains_runs_after_the_next_start_for_the_first_time(
    server: ServerProcess, tmp_path: Path
) -> None:
    server.start()
    gate, runs = tmp_path / "gate", tmp_path / "runs"
    async with raw(server.url) as client:
        welcome = await client.hello(started=True)
        await client.request("a", "append", params={"path": str(runs), "gate": str(gate)})
        await client.next("started")
        terminate(server)
        await client.next("goaway")
        await client.request("b", "append", params={"path": str(runs), "gate": str(gate)})
        await client.next("accepted", "b")
        gate.touch()
        await client.closed()
    assert await exit_code(server) == 0
    await server.astart()
    async with raw(server.url) as client:
        await client.hello(session=welcome["session"])
        assert (await client.next("done", "b"))["attempt"] == 1
    assert runs.read_text() == "a 1\nb 1\n"


async def test_who_is_greeted_while_it_drains_is_told_to_go_away(
    server: ServerProcess, tmp_path: Path
) -> None:
    server.start()
    gate = tmp_path / "gate"
    async with raw(server.url) as client, raw(server.url) as late:
        await client.hello(started=True)
        params = {"path": str(tmp_path / "runs"), "gate": str(gate)}
        await client.request("a", "append", params=params)
        await client.next("started")
        terminate(server)
        await client.next("goaway")
        await late.hello()
        await late.next("goaway")
        gate.touch()
        assert (await late.closed())[0] == 1012
    assert await exit_code(server) == 0


async def test_nobody_is_asked_to_come_back_before_the_next_server_can_be_there(
    server: ServerProcess,
) -> None:
    server.start()
    async with raw(server.url) as client:
        await client.hello()
        terminate(server)
        assert (await client.next("goaway"))["reconnect_after"] > 0.1  # loading takes longer


async def test_few_clients_are_asked_to_come_back_within_a_shorter_time_than_many(
    server: ServerProcess,
) -> None:
    server.start()
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(raw(server.url)) for _ in range(3)]
        for client in clients:
            await client.hello()
        terminate(server)
        waits = [(await client.next("goaway"))["reconnect_after"] for client in clients]
    assert max(waits) - min(waits) <= len(clients) / RECONNECTS_PER_SECOND


async def test_a_request_that_outlasts_the_drain_runs_again(server: ServerProcess) -> None:
    server.settings["drain_timeout"] = 0.1
    server.start()
    async with raw(server.url) as client:
        welcome = await client.hello(started=True)
        await client.request("a", "sleep", params={"seconds": 0.5})
        await client.next("started")
        terminate(server)
        assert (await client.closed())[0] == 1012
    assert await exit_code(server) == 0
    await server.astart()
    async with raw(server.url) as client:
        await client.hello(session=welcome["session"])
        assert (await client.next("done", "a"))["attempt"] == 2


async def test_a_handler_that_swallows_cancellation_does_not_keep_it_alive(
    server: ServerProcess,
) -> None:
    server.settings["drain_timeout"] = 0.1
    server.start()
    async with raw(server.url) as client:
        await client.hello()
        await client.request("a", "stubborn")
        await client.next("result")
        terminate(server)
        await client.closed()
    assert await exit_code(server) == 0
    assert "handlers_do_not_stop" in server.log.read_text()


async def test_a_second_signal_exits_at_once(server: ServerProcess) -> None:
    server.start()
    async with raw(server.url) as client:
        await client.hello(started=True)
        await client.request("a", "endless")
        await client.next("started")
        terminate(server)
        await client.next("goaway")
        terminate(server)
        assert await exit_code(server) == 1


async def test_an_idle_server_stops(server: ServerProcess) -> None:
    server.start()
    async with raw(server.url) as client:
        await client.hello()
        terminate(server)
        assert (await client.closed())[0] == 1012
    assert await exit_code(server) == 0
