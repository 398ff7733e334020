"""The limits of a real server: connections, handshakes, memory, requests; and that what ended is
counted no more."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

from protocol.client import RequestFailed, connect
from tests.integration.test_hostile_bytes import HANDSHAKE, memory_bytes
from tests.raw import RawClient, online, raw
from tests.server_process import ServerProcess, token


async def refused(server: ServerProcess, headers: dict[str, str] | None = None) -> InvalidStatus:
    """Try to open a WebSocket; return the answer."""
    with pytest.raises(InvalidStatus) as caught:
        async with raw(server.url, headers):
            pass
    return caught.value


async def close_code(server: ServerProcess, **hello: object) -> int:
    """Say hello; return the code that closes the connection."""
    async with raw(server.url) as client:
        await client.send({"type": "hello", "token": token(), **hello})
        return (await client.closed())[0]


# By subject


async def test_one_subject_cannot_have_all_connections(own_server: ServerProcess) -> None:
    own_server.settings["max_connections_per_subject"] = 2
    await own_server.astart()
    async with online(own_server.url), online(own_server.url):
        assert await close_code(own_server) == 4429
        async with online(own_server.url, token=token("bob")):
            pass
    assert "your subject has too many connections" in own_server.log.read_text()


async def test_at_the_bound_a_session_can_be_taken_over(own_server: ServerProcess) -> None:
    """Its client may have lost a connection that the server still believes in."""
    own_server.settings["max_connections_per_subject"] = 1
    await own_server.astart()
    async with raw(own_server.url) as first:
        session = (await first.hello())["session"]
        async with raw(own_server.url) as second:
            assert (await second.hello(session=session))["resumed"]
            assert (await first.closed())[0] == 4509
            assert await close_code(own_server) == 4429


async def test_a_foreign_session_is_no_way_around_the_bound(own_server: ServerProcess) -> None:
    own_server.settings["max_connections_per_subject"] = 1
    await own_server.astart()
    async with raw(own_server.url) as bob, online(own_server.url):
        session = (await bob.hello(token=token("bob")))["session"]
        assert await close_code(own_server, session=session) == 4429


# By address


async def test_one_address_cannot_have_all_connections(own_server: ServerProcess) -> None:
    own_server.settings["max_connections_per_address"] = 2
    await own_server.astart()
    async with online(own_server.url), online(own_server.url):
        response = (await refused(own_server)).response
        assert (response.status_code, response.headers["Retry-After"]) == (429, "1")
        assert b"overloaded: too many connections from your address" in response.body
        await probe(own_server)


async def test_behind_a_trusted_proxy_each_client_has_its_own_bound(
    own_server: ServerProcess,
) -> None:
    own_server.settings |= {
        "max_connections_per_address": 1,
        "trusted_proxies": "127.0.0.0/8",
    }
    await own_server.astart()
    async with raw(own_server.url, {"X-Forwarded-For": "203.0.113.1"}):
        async with raw(own_server.url, {"X-Forwarded-For": "203.0.113.2"}):
            pass
        invented = await refused(own_server, {"X-Forwarded-For": "198.51.100.1, 203.0.113.1"})
        assert invented.response.status_code == 429


async def test_without_trusted_proxies_a_forwarded_address_is_not_believed(
    own_server: ServerProcess,
) -> None:
    own_server.settings["max_connections_per_address"] = 1
    await own_server.astart()
    async with raw(own_server.url, {"X-Forwarded-For": "203.0.113.1"}):
        response = (await refused(own_server, {"X-Forwarded-For": "203.0.113.2"})).response
        assert response.status_code == 429


def guess(server: ServerProcess, forwarded_for: str) -> int:
    """Try to log in with a wrong password; return the status."""
    request = urllib.request.Request(  # noqa: S310 - our own server
        f"{server.http}/token",
        method="POST",
        headers={"Authorization": "Basic Ym9iOndyb25n", "X-Forwarded-For": forwarded_for},
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)  # noqa: S310
    caught.value.close()
    return caught.value.code


async def test_guessers_behind_a_trusted_proxy_are_told_apart(own_server: ServerProcess) -> None:
    own_server.settings["trusted_proxies"] = "127.0.0.1"
    await own_server.astart()
    # What stands on the left is invented; the proxy wrote the last one.
    same = [guess(own_server, f"198.51.100.{n}, 203.0.113.1") for n in range(11)]
    assert same == [401] * 10 + [429]
    assert guess(own_server, "203.0.113.2") == 401


async def test_a_proxy_that_is_no_network_stops_the_start(own_server: ServerProcess) -> None:
    own_server.settings["trusted_proxies"] = "10.0.0.1/8"
    own_server.spawn()
    assert own_server.process is not None
    assert own_server.process.wait(30) == 2
    assert "trusted_proxies: 10.0.0.1/8 has host bits set" in own_server.log.read_text()


# By time


async def exhaust(server: ServerProcess, stack: AsyncExitStack) -> Response:
    """Open WebSockets until one is refused; return the answer."""
    while True:
        try:
            await stack.enter_async_context(raw(server.url))
        except InvalidStatus as caught:
            return caught.response


async def test_more_handshakes_than_a_burst_are_told_to_come_back(
    own_server: ServerProcess,
) -> None:
    own_server.settings["handshakes_per_second"] = 1
    await own_server.astart()
    async with AsyncExitStack() as stack:
        response = await exhaust(own_server, stack)
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) >= 1
    assert b"overloaded: too many handshakes" in response.body


# What ended is counted no more


async def reset(server: ServerProcess) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.transport.abort()


async def half_a_request(server: ServerProcess) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(HANDSHAKE[:40])
    writer.transport.abort()


async def no_request(server: ServerProcess) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"nonsense\r\n\r\n")
    await reader.read()
    writer.close()


async def probe(server: ServerProcess) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def wrong_token(server: ServerProcess) -> None:
    assert await close_code(server, token="nonsense") == 4501


async def no_hello(server: ServerProcess) -> None:
    async with raw(server.url) as client:
        client.socket.transport.abort()


async def cut(server: ServerProcess) -> None:
    async with raw(server.url) as client:
        await client.hello()
        client.socket.transport.abort()


async def leave(server: ServerProcess) -> None:
    async with online(server.url):
        pass


async def bye(server: ServerProcess) -> None:
    async with online(server.url) as client:
        await client.send({"type": "bye"})
        assert (await client.closed())[0] == 1000


async def taken_over(server: ServerProcess) -> None:
    async with raw(server.url) as first, raw(server.url) as second:
        session = (await first.hello())["session"]
        await second.hello(session=session)
        await first.closed()


async def over_the_bound(server: ServerProcess) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(BOUND):
            await stack.enter_async_context(raw(server.url))
        await refused(server)


BOUND = 4
WAYS: list[Callable[[ServerProcess], Awaitable[None]]] = [
    reset,
    half_a_request,
    no_request,
    probe,
    wrong_token,
    no_hello,
    cut,
    leave,
    bye,
    taken_over,
    over_the_bound,
]


async def opened(server: ServerProcess, stack: AsyncExitStack) -> RawClient:
    """Open a connection with a session as soon as there is room for it."""
    while True:
        try:
            client = await stack.enter_async_context(raw(server.url))
            await client.send({"type": "hello", "token": token()})
            assert (await client.receive())["type"] == "welcome"
        except InvalidStatus:
            await asyncio.sleep(0.01)  # the server has not yet seen the end of another
        else:
            return client


async def test_a_thousand_connections_that_ended_in_all_ways_leave_nothing_behind(
    own_server: ServerProcess,
) -> None:
    own_server.settings |= {
        "max_connections_per_address": BOUND,
        "max_connections_per_subject": BOUND,
        "handshakes_per_second": 10_000,
    }
    await own_server.astart()
    for number in range(840):  # of which some are more than one connection
        while True:
            try:
                await WAYS[number % len(WAYS)](own_server)
            except InvalidStatus:
                await asyncio.sleep(0.01)
            else:
                break
    async with AsyncExitStack() as stack:
        for _ in range(BOUND):
            await opened(own_server, stack)
        assert (await refused(own_server)).response.status_code == 429


# Memory


async def reasons(server: ServerProcess) -> list[str]:
    """Return why the server is not ready."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
    body = (await reader.read()).partition(b"\r\n\r\n")[2]
    writer.close()
    return json.loads(body).get("reasons", [])


async def test_a_process_with_too_much_memory_takes_no_requests_until_it_has_less(
    own_server: ServerProcess, tmp_path: Path
) -> None:
    await own_server.astart()
    own_server.settings["memory_high_water_bytes"] = memory_bytes(own_server) + 96 * 2**20
    own_server.kill()
    await own_server.astart()
    gate = tmp_path / "gate"
    async with online(own_server.url) as hog, online(own_server.url, token=token("bob")) as bob:
        await hog.request("a", "hoard", params={"mebibytes": 160, "gate": str(gate)})
        while await reasons(own_server) != ["memory_high"]:
            await asyncio.sleep(0.05)
        await bob.request("b", params={"text": "x"})
        refusal = await bob.next("error", "b")
        assert (refusal["code"], refusal["retryable"]) == ("overloaded", True)
        gate.touch()
        await hog.next("done", "a")  # what was accepted runs on
        while await reasons(own_server):
            await asyncio.sleep(0.05)
        await bob.request("b", params={"text": "x"})
        await bob.next("done", "b")
    assert '"event": "memory_high"' in own_server.log.read_text()


# What is told of requests


async def test_params_may_be_as_large_as_a_message_unless_said_otherwise(
    own_server: ServerProcess,
) -> None:
    own_server.settings["max_message_bytes"] = 4 * 2**20
    await own_server.astart()
    async with online(own_server.url) as client:
        await client.request("a", params={"text": "x" * 3 * 2**20})
        await client.next("done", "a")


async def test_params_too_big_end_their_request_alone(own_server: ServerProcess) -> None:
    own_server.settings["max_params_bytes"] = 1000
    await own_server.astart()
    async with connect(own_server.url, token=token()) as session:
        before = session.request("echo", text="before")
        big = session.request("echo", text="x" * 1000)
        behind = session.request("echo", text="behind")
        with pytest.raises(RequestFailed, match="message_too_big: the params have 1011 bytes"):
            await big
        assert [await before, await behind] == ["before", "behind"]


async def test_a_result_larger_than_a_session_may_have_ends_its_request(
    own_server: ServerProcess,
) -> None:
    own_server.settings["max_result_bytes"] = 10_000
    await own_server.astart()
    async with connect(own_server.url, token=token()) as session:
        with pytest.raises(RequestFailed, match="result_too_large"):
            await session.request("echo", text="x" * 10_000)
        assert await session.request("echo", text="small") == "small"


async def test_a_client_over_its_rate_gets_everything_done_in_order(
    own_server: ServerProcess,
) -> None:
    own_server.settings |= {"requests_per_second": 100, "window": 16}
    await own_server.astart()
    async with connect(own_server.url, token=token()) as session:
        handles = [session.request("echo", text=str(number)) for number in range(150)]
        assert [await handle for handle in handles] == [str(number) for number in range(150)]
        assert [handle.n for handle in handles] == list(range(1, 151))


async def test_a_client_over_the_bound_of_unfinished_requests_gets_everything_done_in_order(
    own_server: ServerProcess,
) -> None:
    own_server.settings["max_unfinished"] = 9
    await own_server.astart()
    async with connect(own_server.url, token=token()) as session:
        handles = [session.request("echo", text=str(number)) for number in range(20)]
        assert [await handle for handle in handles] == [str(number) for number in range(20)]
        assert [handle.n for handle in handles] == list(range(1, 21))


# Who is away


async def test_a_stream_nobody_waits_for_does_not_keep_others_waiting(
    own_server: ServerProcess, tmp_path: Path
) -> None:
    """Nothing holds it back, and its handler waits for nothing itself."""
    await own_server.astart()
    gate = tmp_path / "gate"
    try:
        async with raw(own_server.url) as client:
            await client.hello()
            await client.request("a", "torrent", params={"gate": str(gate)})
            await client.next("result", "a")
            client.socket.transport.abort()
        async with online(own_server.url, token=token("bob")) as bob:
            for number in range(20):
                await bob.request(str(number), params={"text": "x"})
                await bob.next("done", str(number))
    finally:
        gate.touch()
