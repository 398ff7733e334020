"""Other people's sessions: guessing, resuming, reading, ending them."""

import asyncio
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.raw import Frame, RawClient, online, raw
from tests.server_process import ServerProcess, token

ALPHABET = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


async def run(client: RawClient, request_id: str, text: str = "x") -> Frame:
    """Run a request of alice's to its end; return that."""
    await client.request(request_id, params={"text": text})
    return await client.next("done", request_id)


async def test_a_session_id_cannot_be_guessed(server: ServerProcess) -> None:
    """24 characters of 64: 144 bits, of the operating system (test_code.py holds which)."""
    ids: list[str] = []
    for _ in range(100):
        async with raw(server.url) as client:
            ids.append((await client.hello())["session"])
            await client.send({"type": "bye"})
            await client.closed()
    assert len(set(ids)) == 100
    assert {len(one) for one in ids} == {24}
    assert set("".join(ids)) <= ALPHABET
    # Every place of it varies: with chance one in 10^20 does not show 20 characters in 100.
    assert all(len(set(place)) >= 20 for place in zip(*ids, strict=True))


def told(welcome: Frame) -> Frame:
    """Return what a welcome tells apart from what is always new."""
    new = {"session", "expires_at"}
    return {name: value for name, value in welcome.items() if name not in new}


async def test_a_foreign_session_answers_as_one_that_never_was(server: ServerProcess) -> None:
    async with raw(server.url) as alice:
        session = (await alice.hello())["session"]
        await run(alice, "a")
        answers: list[Frame] = []
        for wanted in (session, "A" * 24, session.swapcase(), session + "x", "../" + session):
            async with raw(server.url) as mallory:
                hello = {"token": token("mallory"), "session": wanted, "epoch": "e", "seq": 9}
                answers.append(told(await mallory.hello(**hello)))
        assert answers[0]["reason"] == "unknown_session"
        assert all(answer == answers[0] for answer in answers)
        await run(alice, "b")  # and nobody disturbed her


async def test_rights_of_a_token_do_not_open_foreign_sessions(server: ServerProcess) -> None:
    async with raw(server.url) as alice, raw(server.url) as mallory:
        session = (await alice.hello())["session"]
        better = token("mallory", scope="admin read write", ttl_seconds=10**9)
        assert not (await mallory.hello(token=better, session=session))["resumed"]


async def test_epoch_and_seq_of_another_session_give_nothing(server: ServerProcess) -> None:
    """They only say where to go on; one out of range means from the beginning."""
    async with raw(server.url) as alice, raw(server.url) as bob:
        hers = await alice.hello()
        theirs = await bob.hello(token=token("bob"))
        await run(alice, "a", "alice's")
        await run(bob, "b", "bob's")
    async with raw(server.url) as bob:
        hello = {"token": token("bob"), "session": theirs["session"], "epoch": hers["epoch"]}
        assert (await bob.hello(**hello, seq=10**9))["resumed"]
        assert (await bob.next("result"))["data"] == "bob's"


@pytest.mark.parametrize(
    "frame",
    [{"type": "cancel", "id": "hers"}, {"type": "ack", "seq": 3}, {"type": "bye", "cancel": True}],
    ids=lambda frame: frame["type"],
)
async def test_what_is_said_in_one_session_means_nothing_in_another(
    server: ServerProcess, frame: Frame
) -> None:
    async with raw(server.url) as alice:
        session = (await alice.hello())["session"]
        await run(alice, "a")
        await alice.request("hers", "sleep", params={"seconds": 0.2})
        await alice.next("accepted", "hers")
        async with online(server.url) as other:  # even by herself, in a second session
            await other.send(frame)
            await (other.closed() if frame["type"] == "bye" else other.next("error"))
        async with raw(server.url) as again:
            await again.hello(session=session)
            ends = await again.until("done", "hers")
            assert [end["id"] for end in ends if end["type"] == "done"] == ["a", "hers"]


async def test_a_request_id_of_another_session_is_a_new_one(server: ServerProcess) -> None:
    async with online(server.url) as alice, online(server.url, token=token("bob")) as bob:
        await run(alice, "the same", "alice's")
        await bob.request("the same", params={"text": "bob's"})
        accepted = await bob.next("accepted")
        assert "duplicate" not in accepted
        assert (await bob.next("result"))["data"] == "bob's"


async def test_idempotency_keys_of_two_sessions_differ(server: ServerProcess) -> None:
    keys: set[str] = set()
    for _ in range(2):
        async with online(server.url) as client:
            await client.request("the same", "whoami")
            keys.add((await client.next("result"))["data"]["key"])
    assert len(keys) == 2


async def test_a_refresh_to_another_subject_ends_the_connection_not_the_session(
    server: ServerProcess,
) -> None:
    async with raw(server.url) as client:
        session = (await client.hello())["session"]
        await client.send({"type": "refresh", "token": token("mallory")})
        assert (await client.closed())[0] == 4503
    async with raw(server.url) as mallory, raw(server.url) as alice:
        assert not (await mallory.hello(token=token("mallory"), session=session))["resumed"]
        assert (await alice.hello(session=session))["resumed"]


async def test_frames_behind_a_refused_refresh_are_not_taken(server: ServerProcess) -> None:
    async with raw(server.url) as client:
        session = (await client.hello())["session"]
        await client.send(
            {"type": "refresh", "token": token("mallory")},
            {"type": "request", "id": "late", "method": "whoami"},
        )
        await client.closed()
    async with raw(server.url) as client:
        assert (await client.hello(session=session))["requests"] == []


async def test_a_hello_that_was_recorded_is_worth_no_more_than_its_token(
    server: ServerProcess,
) -> None:
    hello: dict[str, Any] = {"type": "hello", "token": token(ttl_seconds=-3)}  # leeway: 5 s
    async with raw(server.url) as client:
        await client.send(hello)
        hello["session"] = (await client.next("welcome"))["session"]
    code = 0
    while not code:
        await asyncio.sleep(0.1)
        async with raw(server.url) as client:
            await client.send(hello)
            try:
                assert (await client.next("welcome"))["resumed"]
            except ConnectionClosed:
                code, _ = await client.closed()
    assert code == 4401


async def test_scopes_are_those_of_the_token_at_hand(server: ServerProcess) -> None:
    async with raw(server.url) as admin:
        session = (await admin.hello(token=token(scope="admin")))["session"]
    async with raw(server.url) as same:
        await same.hello(session=session)  # a token of the same subject, without scope
        await same.request("a", "secret")
        assert (await same.next("error"))["code"] == "forbidden"
