"""Clients, good and bad: whatever a graph or an alert looks for happens to a server once."""

import asyncio
import time
from typing import Any, Final

from tests.integration.test_http import basic
from tests.network.test_slow_readers import deaf
from tests.raw import online, raw
from tests.security.attacks import exchange
from tests.server_process import ServerProcess, token

SESSIONS_PER_SUBJECT: Final = 8
MIB: Final = 2**20
SETTINGS: Final[dict[str, Any]] = {
    "handlers": "tests.integration.handlers:handlers",
    "window": 4,
    "max_message_bytes": 4096,
    "max_result_bytes": 8 * MIB,
    "max_sessions_per_subject": SESSIONS_PER_SUBJECT,
    "slow_consumer_timeout": 0.2,
}
"""Settings with limits that one client can reach."""


async def traffic(server: ServerProcess) -> None:
    """Let each kind of thing happen, one after the other."""
    for part in (
        good_requests,
        failing_requests,
        refused_requests,
        sessions_that_are_resumed,
        people_who_are_not_let_in,
        too_many_sessions,
        clients_that_do_not_read,
    ):
        async with asyncio.timeout(20):
            await part(server)


async def crash(server: ServerProcess) -> None:
    """SIGKILL under a running request and a waiting one; the client comes back for them."""
    async with raw(server.url) as client:
        welcome = await client.hello()
        await client.request("stopped", "append_once", params={"path": "runs", "gate": "never"})
        await client.request("waits", params={"text": "after the crash"})
        await client.all_of(("accepted", "stopped"), ("accepted", "waits"))
        await server.restart()
    async with raw(server.url) as client:
        await client.hello(session=welcome["session"], epoch=welcome["epoch"], seq=0)
        await client.all_of(("error", "stopped"), ("done", "waits"))


async def good_requests(server: ServerProcess) -> None:
    async with online(server.url) as client:
        for number in range(20):
            await client.request(f"{number}", params={"text": number})
            await client.request(f"{number} words", "words", params={"text": "to be or not"})
            await client.request(f"{number} thread", "in_thread")
            await client.next("done", f"{number} thread")
            await client.send({"type": "ack", "seq": 9 * (number + 1)})
        await client.request("0", params={"text": 0})  # sent again
        await client.next("accepted", "0")
        await client.send({"type": "bye"})
        await client.closed()


async def failing_requests(server: ServerProcess) -> None:
    async with online(server.url) as client:
        await client.request("own code", "fail")
        await client.request("crash", "fail", params={"crash": True})
        await client.next("error", "crash")
        await client.request("late", "sleep", params={"seconds": 60}, timeout=0.05)
        await client.request("unwanted", "sleep", params={"seconds": 60})
        await client.send({"type": "cancel", "id": "unwanted"})
        await client.all_of(("error", "late"), ("error", "unwanted"))
        await client.request("much", "flood", params={"count": 900, "size": 10_000})
        await client.next("error", "much")


async def refused_requests(server: ServerProcess) -> None:
    async with online(server.url) as client:
        await client.send({"type": "nonsense"})
        for id_, method in (("a", "no such method"), ("b", "words"), ("c", "secret")):
            await client.request(id_, method)
            await client.next("error", id_)
        for id_ in ("1", "2", "3", "4", "one too many"):
            await client.request(id_, "sleep", params={"seconds": 60})
        await client.next("error", "one too many")
        await client.send({"type": "bye", "cancel": True})


async def sessions_that_are_resumed(server: ServerProcess) -> None:
    async with raw(server.url) as client:
        welcome = await client.hello(session="nobody knows it")
    known = {name: welcome[name] for name in ("session", "epoch", "seq")}
    async with online(server.url, **known) as client, online(server.url, **known):
        await client.closed()  # taken over


async def people_who_are_not_let_in(server: ServerProcess) -> None:
    async with raw(server.url, {"Origin": "https://elsewhere.example"}) as client:
        await client.closed()
    for given in (token(now=time.time() - 7200), "no token", None):
        async with raw(server.url) as client:
            await client.send({"type": "hello", "token": given})
            await client.closed()
    login = f"POST /token HTTP/1.1\r\nHost: x\r\nAuthorization: {basic('who', 'knows')}\r\n\r\n"
    await exchange(server, login.encode())


async def too_many_sessions(server: ServerProcess) -> None:
    for number in range(SESSIONS_PER_SUBJECT + 1):
        async with raw(server.url) as client:
            await client.send({"type": "hello", "token": token("crowd")})
            await client.receive() if number < SESSIONS_PER_SUBJECT else await client.closed()


async def clients_that_do_not_read(server: ServerProcess) -> None:
    async with deaf(server.port) as wire:
        await wire.hello()
        flood = {"count": 700, "size": 10_000}
        wire.say(type="request", id="a", method="flood", params=flood)
        while "slow_consumer" not in server.log.read_text():
            await asyncio.sleep(0.02)
