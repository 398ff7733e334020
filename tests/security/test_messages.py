"""What a client with a token can say to cost the server more than it costs to send."""

import asyncio
import json
import time
from typing import Any

import pytest

from protocol import frames as wire
from protocol.codec import BAD_FRAMES_MAX, encode
from protocol.codes import ErrorCode
from server.auth import Identity
from server.session import REFUSALS_MAX, Flooded, Refused
from tests.raw import Frame, RawClient, online, raw
from tests.rules_bench import Bench
from tests.security.attacks import memory_mib, serves
from tests.server_process import ServerProcess, token, unique
from tests.unit.test_gateway import ListConnection, make

MIB = 2**20


async def answers(client: RawClient, text: str) -> list[Frame]:
    """Send a message and then a request; return what came before the request's end."""
    await client.socket.send(text)
    await client.request(request_id := unique(), params={"text": ""})
    return (await client.until("done", request_id))[:-1]


def errors(frames: list[Frame]) -> list[Frame]:
    return [frame for frame in frames if frame["type"] == "error"]


@pytest.mark.parametrize(
    "message",
    ["\n" * MIB, " " * MIB, "[" * MIB, '{"a":' * (MIB // 5), '"' * MIB, "9" * MIB],
    ids=["newlines", "spaces", "nested lists", "nested objects", "quotes", "one number"],
)
async def test_a_message_that_is_no_frame_gets_one_short_answer(
    server: ServerProcess, message: str
) -> None:
    async with online(server.url) as client:
        refused = errors(await answers(client, message))
        assert [error["code"] for error in refused] == ["bad_frame"]
        assert len(json.dumps(refused)) < 1000


@pytest.mark.parametrize(
    "line", ["0", "{}", '{"type":""}', "x", '{"type":"ack","seq":-1}', "[[]]", '{"type":"welcome"}']
)
async def test_a_message_of_bad_frames_is_not_read_to_its_end(
    server: ServerProcess, line: str
) -> None:
    """Each bad one costs some microseconds and an answer: half a million took 1.2 s and 70 MiB."""
    async with online(server.url) as client:
        before = memory_mib(server)
        await client.socket.send((line + "\n") * (MIB // (len(line) + 1)))
        refused = await client.until_closed()
        assert len(refused) == BAD_FRAMES_MAX + 1
        assert "too many bad frames" in refused[-1]["message"]
        assert await client.closed() == (4500, f"bad_frame: {refused[-1]['message']}")
        assert memory_mib(server) - before < 32


async def test_what_was_accepted_before_too_many_bad_frames_still_runs(
    server: ServerProcess,
) -> None:
    request = '{"type":"request","id":"good","method":"echo","params":{"text":1}}\n'
    async with raw(server.url) as client:
        welcome = await client.hello()
        await client.socket.send(request + "x\n" * 1000)
        assert (await client.closed())[0] == 4500
    async with raw(server.url) as client:
        await client.hello(session=welcome["session"])
        await client.next("done", "good")


async def test_too_many_bad_frames_behind_a_refresh_end_the_connection_too(
    server: ServerProcess,
) -> None:
    async with online(server.url) as client:
        refresh = json.dumps({"type": "refresh", "token": token()})
        await client.socket.send(f"{refresh}\n" + "x\n" * 1000)
        assert (await client.closed())[0] == 4500


@pytest.mark.parametrize("line", ["0", '{"type":"hello"', "x" * 100])
async def test_bad_frames_in_place_of_hello_are_answered_once(
    server: ServerProcess, line: str
) -> None:
    async with raw(server.url) as client:
        await client.socket.send((line + "\n") * (60_000 // (len(line) + 1)))
        assert len(await client.until_closed()) == 1
        assert (await client.closed())[0] == 4500


@pytest.mark.parametrize(
    "frame",
    [
        '{"type":"cancel","id":"nobody"}',
        '{"type":"ack","seq":99}',
        '{"type":"hello"}',
        '{"type":"request","id":"a","method":"ech"}',
        '{"type":"request","id":"a","method":"words"}',
    ],
)
async def test_who_is_refused_without_end_is_cut_off_as_who_does_not_read(
    server: ServerProcess, frame: str
) -> None:
    """Good frames that ask for nothing but a refusal: their answers stay in bounds as well."""
    async with online(server.url) as client:
        before = memory_mib(server)
        message = (frame + "\n") * (MIB // (len(frame) + 1))
        await client.socket.send(message)
        assert (await client.closed())[0] == 4413
        assert memory_mib(server) - before < 64
    await serves(server)


@pytest.mark.parametrize(
    "frame",
    [wire.Cancel("nobody"), wire.Ack(99), wire.Hello(), wire.Request("a", "unknown")],
    ids=lambda frame: type(frame).__name__,
)
def test_what_follows_a_thousand_refusals_is_not_taken(frame: wire.ClientFrame) -> None:
    """Other sessions wait while a message is taken."""

    def refuse(*_: Any) -> None:
        raise Refused(ErrorCode.UNKNOWN_METHOD, "no such method")

    bench = Bench(check=refuse)
    bench.connect()
    with pytest.raises(Flooded):
        bench.say(*[frame] * 10_000)
    assert len(bench.out.frames) == REFUSALS_MAX + 1


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"%s"}',
        '{"type":"request","id":"%s","method":"echo"}',
        '{"type":"request","id":"a","method":"%s"}',
        '{"type":"request","id":"a","method":"echo","on_disconnect":"%s"}',
        '{"type":"request","id":"a","method":"words","params":{"%s":1}}',
        '{"type":"request","id":"a","method":"words","params":{"text":1,"%s":1}}',
        '{"type":"refresh","token":"%s"}',
    ],
)
async def test_an_answer_quotes_no_more_than_a_little(server: ServerProcess, text: str) -> None:
    async with online(server.url) as client:
        [error] = errors(await answers(client, text % ("x" * 500_000)))
        assert len(error["message"]) < 1000
        assert len(error.get("id", "")) < 1100


@pytest.mark.parametrize(
    "number", ["1e400", "-1e400", "1" * 5000, "1" + "0" * 100_000, "1e999999999"]
)
async def test_numbers_too_large_for_json_libraries_are_refused(
    server: ServerProcess, number: str
) -> None:
    async with online(server.url) as client:
        text = f'{{"type":"request","id":"a","method":"echo","params":{{"text":{number}}}}}'
        [error] = errors(await answers(client, text))
        assert error["code"] == "invalid_params"


async def test_a_request_id_may_hold_what_it_likes_and_comes_back_as_it_was(
    server: ServerProcess,
) -> None:
    odd = [
        "\x00",
        "\n",
        "\u2028",
        "\x1b[2J",
        "$where",
        "../../etc/passwd",
        "' OR 1=1 --",
        "\U0010ffff",
    ]
    async with online(server.url) as client:
        for request_id in odd:
            await client.request(request_id, params={"text": 1})
            assert (await client.next("done"))["id"] == request_id


@pytest.mark.parametrize("escape", ["\\ud800", "\\udfff", "\\ud800\\u0041"])
async def test_half_a_surrogate_pair_gets_nowhere(server: ServerProcess, escape: str) -> None:
    """It could not be written into the journal as UTF-8."""
    async with online(server.url) as client:
        text = f'{{"type":"request","id":"{escape}","method":"echo","params":{{"text":1}}}}'
        [error] = errors(await answers(client, text))
        assert error["code"] == "bad_frame"


async def test_the_window_holds_however_fast_requests_come(server: ServerProcess) -> None:
    frame = '{"type":"request","id":"%d","method":"endless"}'
    async with online(server.url) as client:
        await client.socket.send("\n".join(frame % number for number in range(1000)))
        seen: list[str] = []
        while len(seen) < 1000:
            got = await client.receive()
            seen.append(got.get("code", got["type"]))
        assert seen.count("accepted") == 64
        assert seen.count("window_exceeded") == 936
        await client.send({"type": "bye", "cancel": True})
        await client.closed()


class Closing(ListConnection):
    """Remembers with what it was closed."""

    code = 0

    def close(self, code: int, reason: str) -> None:
        self.code, self.open = int(code), False


async def test_who_lets_answers_pile_up_is_closed_before_the_next_message() -> None:
    gateway, _ = make()
    gateway._outbox_bytes = 1024
    connection: Any = Closing(wire.Hello())
    await gateway.serve(connection)
    cancel = encode(wire.Cancel("nobody")).decode()
    connection.receiver.take("\n".join([cancel] * 100))
    assert connection.code == 4413


class Believing:
    """Takes every token at once, as a Verifier does whose key is at hand."""

    def __init__(self) -> None:
        self.believed = 0

    async def verify(self, _token: str) -> Identity:
        self.believed += 1
        return Identity("alice", frozenset(), time.time() + 60)


async def test_a_message_of_refreshes_lets_others_have_their_turn() -> None:
    """Each costs a signature: the five thousand of a message must not be checked in one go."""
    gateway, _ = make()
    verifier: Any = Believing()
    gateway._verifier = verifier
    connection: Any = ListConnection(wire.Hello())
    await gateway.serve(connection)
    refresh = encode(wire.Refresh("token")).decode()
    connection.receiver.take("\n".join([refresh] * 1000))
    turns = 0
    while verifier.believed < 1000:
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 1000
