"""What waits to be written to one connection."""

import asyncio

from msgspec import Raw

from protocol.codec import decode_server_message
from protocol.frames import Accepted, Done, Result
from server.outbox import MESSAGE_BYTES_MAX, OVERFLOW_FACTOR, Outbox

FRAME = Accepted("a", 1)


def make(limit_bytes: int) -> Outbox:
    return Outbox(limit_bytes, lambda: None)


def test_frames_are_joined_into_one_message_in_order() -> None:
    outbox = make(1000)
    outbox.put(Accepted("a", 1))
    outbox.put_all([Done("b", 1, 1, 0), Done("c", 2, 1, 0)], [5, 5])
    message = outbox.take()
    assert decode_server_message(message) == [
        Accepted("a", 1),
        Done("b", 1, 1, 0),
        Done("c", 2, 1, 0),
    ]
    assert not message.endswith(b"\n")


def test_frames_that_are_encoded_already_keep_their_place() -> None:
    outbox = make(1000)
    outbox.put(Accepted("a", 1))
    outbox.put(Raw(b'{"type":"accepted","id":"b","n":2}\n{"type":"accepted","id":"c","n":3}'))
    outbox.put(Accepted("d", 4))
    frames = decode_server_message(outbox.take())
    assert [frame.n for frame in frames if isinstance(frame, Accepted)] == [1, 2, 3, 4]


def test_it_is_full_from_its_limit_on() -> None:
    outbox = make(10)
    outbox.put(FRAME, 9)
    assert not outbox.full
    outbox.put(FRAME, 1)
    assert outbox.full


def test_taking_makes_room() -> None:
    outbox = make(10)
    outbox.put(FRAME, 10)
    outbox.take()
    assert not outbox.full
    assert outbox.size == 0


def test_a_long_backlog_is_taken_in_several_messages() -> None:
    outbox = make(10 * MESSAGE_BYTES_MAX)
    size = MESSAGE_BYTES_MAX // 2
    for n in range(5):
        outbox.put(Result("a", 1, n, Raw(b"1" * size)), size)
    messages = [decode_server_message(outbox.take()) for _ in range(3)]
    assert [[f.index for f in m if isinstance(f, Result)] for m in messages] == [
        [0, 1],
        [2, 3],
        [4],
    ]
    assert outbox.size == 0


def test_replies_go_in_though_it_is_full_until_it_overflows() -> None:
    outbox = make(10)
    for _ in range(OVERFLOW_FACTOR - 1):
        outbox.put(FRAME, 10)
    assert not outbox.overflowed
    outbox.put(FRAME, 10)
    assert outbox.overflowed


def test_the_writer_is_woken_once_for_all_that_comes_before_it_takes() -> None:
    woken: list[int] = []
    outbox = Outbox(1000, lambda: woken.append(1))
    outbox.put(FRAME)
    outbox.put_all([FRAME, FRAME], [5, 5])
    assert len(woken) == 1
    outbox.take()
    outbox.put(FRAME)
    assert len(woken) == 2


async def test_who_waits_for_room_goes_on_when_there_is_some() -> None:
    outbox = make(10)
    outbox.put(FRAME, 10)
    waiting = asyncio.ensure_future(outbox.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    outbox.take()
    await waiting


async def test_closing_lets_who_waits_for_room_go_on() -> None:
    outbox = make(10)
    outbox.put(FRAME, 10)
    waiting = asyncio.ensure_future(outbox.room())
    await asyncio.sleep(0)
    outbox.close()
    await waiting
