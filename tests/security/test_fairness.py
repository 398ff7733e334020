"""What one user can take from the others: sessions, connections, memory."""

from typing import Any

import pytest

from tests.raw import RawClient, online, raw
from tests.security.attacks import memory_mib, serves
from tests.server_process import ServerProcess, token

MIB = 2**20


@pytest.fixture
async def crowded(own_server: ServerProcess) -> ServerProcess:
    """A server on which alice may have two sessions, and everybody together four."""
    own_server.settings |= {"max_sessions_per_subject": 2, "max_sessions": 4}
    await own_server.astart()
    return own_server


async def open_session(server: ServerProcess, subject: str = "alice") -> str:
    """Open a session and leave it; return its id."""
    async with raw(server.url) as client:
        return (await client.hello(token=token(subject)))["session"]


async def test_one_subject_cannot_take_all_sessions(crowded: ServerProcess) -> None:
    mine = [await open_session(crowded) for _ in range(2)]
    async with raw(crowded.url) as client:
        await client.send({"type": "hello", "token": token()})
        code, reason = await client.closed()
        assert code == 4429
        assert reason.startswith("overloaded: your subject has too many sessions")
    assert '"code": 4429' in crowded.log.read_text()
    # Others may, and so may alice: with one she has, or when she has ended one.
    await open_session(crowded, "bob")
    async with raw(crowded.url) as client:
        assert (await client.hello(session=mine[0]))["resumed"]
        await client.send({"type": "bye"})
        await client.closed()
    await open_session(crowded)


async def test_the_bound_of_all_sessions_says_come_back_later(crowded: ServerProcess) -> None:
    for subject in ("alice", "alice", "bob", "bob"):
        await open_session(crowded, subject)
    async with raw(crowded.url) as client:
        await client.send({"type": "hello", "token": token("carol")})
        assert (await client.closed())[0] == 1013


async def test_a_session_that_was_ended_counts_while_its_request_runs(
    crowded: ServerProcess,
) -> None:
    """Or `bye` behind a long request would make room for another without end."""
    for _ in range(2):
        async with online(crowded.url) as client:
            await client.request("a", "endless")
            await client.send({"type": "bye"})
            await client.closed()
    async with raw(crowded.url) as client:
        await client.send({"type": "hello", "token": token()})
        assert (await client.closed())[0] == 4429


async def test_too_many_connections_are_told_to_come_back(own_server: ServerProcess) -> None:
    own_server.settings["max_connections"] = 2
    await own_server.astart()
    async with online(own_server.url), online(own_server.url), raw(own_server.url) as third:
        assert (await third.closed())[0] == 1013


# Memory


async def outcome(client: RawClient, method: str, params: dict[str, Any]) -> str:
    """Run a request; return how it ended, or why it was refused."""
    await client.request("a", method, params=params)
    while True:
        frame = await client.receive()
        if frame["type"] in {"done", "error"}:
            return frame.get("code", "done")


async def test_unacknowledged_results_of_one_user_do_not_keep_others_out(
    own_server: ServerProcess,
) -> None:
    """Each session is within its own bound; all of them together are not within alice's share."""
    own_server.settings |= {"result_memory_bytes": 8 * MIB, "max_result_bytes": 4 * MIB}
    await own_server.astart()
    seen: list[str] = []
    for _ in range(4):
        async with online(own_server.url) as alice:
            seen.append(await outcome(alice, "flood", {"count": 30, "size": 100_000}))
    assert (seen[0], set(seen[1:])) == ("done", {"result_too_large"})
    async with online(own_server.url, token=token("bob")) as bob:
        assert await outcome(bob, "flood", {"count": 10, "size": 100_000}) == "done"


async def test_waiting_requests_of_one_user_do_not_keep_others_out(
    own_server: ServerProcess,
) -> None:
    own_server.settings |= {"result_memory_bytes": 8 * MIB}
    await own_server.astart()
    before = memory_mib(own_server)
    text = "x" * 1_000_000
    refused: list[str] = []
    for _ in range(4):
        async with online(own_server.url) as alice:
            await alice.request("running", "endless")
            for number in range(10):
                await alice.request(f"{number}", params={"text": text})
            await alice.request("more", params={"text": "short"})
            refused += [f["code"] for f in await alice.until("error", "more") if "code" in f]
    assert set(refused) == {"overloaded"}
    assert memory_mib(own_server) - before < 64  # forty of them with arguments take 80
    await serves(own_server)
