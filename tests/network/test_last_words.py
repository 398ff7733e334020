"""What a client says right before it closes counts."""

import json

from protocol.client import connect
from scripts.bench.framing import CLOSE, TEXT
from tests.network.wire import close_payload, frame, opened
from tests.server_process import ServerProcess, token, unique


def said(**fields: object) -> bytes:
    return frame(TEXT, json.dumps(fields).encode())


GOODBYE = frame(CLOSE, close_payload(1000))


async def test_bye_in_one_packet_with_the_close_frame_ends_the_session(
    server: ServerProcess,
) -> None:
    async with opened(server.port) as wire:
        welcome = await wire.hello()
        wire.write(said(type="bye") + GOODBYE)
        assert [one.opcode for one in await wire.receive_all()] == [CLOSE]
    async with opened(server.port) as wire:
        assert (await wire.hello(session=welcome["session"]))["reason"] == "unknown_session"


async def test_a_request_in_one_packet_with_the_close_frame_is_accepted(
    server: ServerProcess,
) -> None:
    async with opened(server.port) as wire:
        welcome = await wire.hello()
        request = said(type="request", id="a", method="tally", params={"key": unique()})
        wire.write(request + GOODBYE)
        await wire.receive_all()
    known: list[object] = []
    while not known:  # not before its commit
        async with opened(server.port) as wire:
            again = await wire.hello(session=welcome["session"])
            assert again["resumed"]
            known = [one["id"] for one in again["requests"]]
    assert known == ["a"]


async def test_what_our_client_has_seen_does_not_come_again_after_detach(
    server: ServerProcess,
) -> None:
    async with connect(server.url, token=token()) as session:
        await session.request("tally", key=unique())
        session_id = await session.detach()
    async with connect(server.url, token=token(), resume=session_id) as session:
        assert session.requests == {}


async def test_what_comes_behind_a_message_that_was_refused_does_not_count(
    server: ServerProcess,
) -> None:
    async with opened(server.port) as wire:
        welcome = await wire.hello()
        wire.write(frame(TEXT, b"\xff") + said(type="bye"))
        (closing,) = await wire.receive_all()
        assert closing.close_code == 1007
    async with opened(server.port) as wire:
        assert (await wire.hello(session=welcome["session"]))["resumed"]
