"""Metrics of a real server's limits, of its end, its log and its operators."""

import asyncio
import json
import signal
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from urllib.error import HTTPError

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.integration.operator_cli import operate
from tests.integration.test_limits import exhaust
from tests.integration.test_metrics import get, until
from tests.metrics import Scrape
from tests.raw import online, raw
from tests.server_process import ServerProcess

SETTINGS_OF_LIMITS = {
    "connections_max": "max_connections",
    "sessions_max": "max_sessions",
    "window_max": "window",
    "unfinished_max": "max_unfinished",
    "memory_limit_bytes": "result_memory_bytes",
    "memory_high_water_bytes": "memory_high_water_bytes",
    "outbox_limit_bytes": "outbox_bytes",
}


async def test_the_limits_in_force_are_told(own_server: ServerProcess) -> None:
    values = {name: 2**30 + n for n, name in enumerate(SETTINGS_OF_LIMITS.values())}
    values |= {"window": 77, "max_connections": 78, "max_sessions": 79, "max_unfinished": 80}
    own_server.settings |= values
    await own_server.astart()
    scrape = await asyncio.to_thread(Scrape, own_server)
    told = {setting: scrape(name) for name, setting in SETTINGS_OF_LIMITS.items()}
    assert told == values


@pytest.mark.parametrize(
    ("setting", "limit"),
    [
        ("max_connections", "connections"),
        ("max_connections_per_subject", "connections_per_subject"),
        ("max_connections_per_address", "connections_per_address"),
        ("max_sessions", "sessions"),
        ("max_sessions_per_subject", "sessions_per_subject"),
    ],
)
async def test_who_a_limit_keeps_out_is_counted_under_its_name(
    own_server: ServerProcess, setting: str, limit: str
) -> None:
    own_server.settings[setting] = 1
    await own_server.astart()
    async with online(own_server.url):
        # By a status, at once after the handshake, or by the answer to hello.
        with suppress(InvalidStatus, ConnectionClosed):
            async with raw(own_server.url) as second:
                await second.hello()
        scrape = await asyncio.to_thread(Scrape, own_server)
    assert scrape("connections_rejected_total", reason=limit) == 1


async def test_handshakes_over_the_rate_are_counted(own_server: ServerProcess) -> None:
    own_server.settings["handshakes_per_second"] = 1
    await own_server.astart()
    async with AsyncExitStack() as stack:
        await exhaust(own_server, stack)
        scrape = await asyncio.to_thread(Scrape, own_server)
    assert scrape("connections_rejected_total", reason="handshake_rate") == 1


async def test_a_drain_is_told_until_its_end(own_server: ServerProcess, tmp_path: Path) -> None:
    own_server.settings["drain_timeout"] = 20
    await own_server.astart()
    gate = tmp_path / "gate"
    async with raw(own_server.url) as client:
        await client.hello(started=True)
        params = {"path": str(tmp_path / "runs"), "gate": str(gate)}
        await client.request("a", "append", params=params)
        await client.next("started")
        assert own_server.process is not None
        own_server.process.send_signal(signal.SIGTERM)
        await client.next("goaway")
        scrape = await asyncio.to_thread(Scrape, own_server)
        with pytest.raises(HTTPError) as unready:
            await asyncio.to_thread(get, f"{own_server.admin}/readyz")
        answer = json.loads(unready.value.read())
        gate.touch()
    assert (scrape("ready"), scrape("unready", reason="draining")) == (0, 1)
    assert (unready.value.code, answer["reasons"]) == (503, ["draining"])


async def test_lines_left_out_of_the_log_are_counted(own_server: ServerProcess) -> None:
    await own_server.astart()
    for _ in range(50):
        async with raw(own_server.url) as client:
            await client.send({"type": "hello"})
            await client.closed()
    scrape = await until(own_server, lambda s: s("handshakes_total", outcome="refused") == 50)
    written = own_server.log.read_text().count('"event": "refused"')
    assert scrape("log_lines_suppressed_total") >= 50 - written > 0


async def test_commands_of_operators_are_counted_by_what_became_of_them(
    own_server: ServerProcess,
) -> None:
    await own_server.astart()
    async with raw(own_server.url) as client:
        session = (await client.hello())["session"]
        await client.request("a", "endless")
        await client.next("accepted", "a")
        assert (await operate(own_server, "requests", "cancel", f"{session}:1")).code == 0
    scrape = await asyncio.to_thread(Scrape, own_server)
    assert scrape("operator_commands_total", status="done") == 1
    assert scrape("operator_commands_total", status="refused") == 0


async def test_a_client_that_reads_nothing_is_seen_and_counted(own_server: ServerProcess) -> None:
    own_server.settings |= {
        "slow_consumer_timeout": 0.5,
        "outbox_bytes": 65536,
        "max_result_bytes": 64 * 2**20,
    }
    await own_server.astart()
    async with raw(own_server.url) as client:
        await client.hello()
        await client.request("a", "flood", params={"count": 3000, "size": 10_000})
        await client.next("accepted")
        client.socket.transport.pause_reading()
        await until(own_server, lambda s: s("connections_paused") == 1)
        scrape = await until(own_server, lambda s: s("slow_consumers_total") == 1)
        client.socket.transport.resume_reading()
    # The results, and the request that gives them.
    assert scrape("memory_held_bytes") > scrape("unacked_bytes") > 65536
