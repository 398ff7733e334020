"""What waits to be written to one connection."""

import asyncio

from server.outbox import MESSAGE_BYTES_MAX, OVERFLOW_FACTOR, Outbox


def test_frames_are_joined_into_one_message_in_order() -> None:
    outbox = Outbox(1000)
    outbox.put(b"one")
    outbox.put(b"two")
    assert outbox.take() == b"one\ntwo"


def test_it_is_full_from_its_limit_on() -> None:
    outbox = Outbox(10)
    outbox.put(b"x" * 9)
    assert not outbox.full
    outbox.put(b"x")
    assert outbox.full


def test_taking_makes_room() -> None:
    outbox = Outbox(10)
    outbox.put(b"x" * 10)
    outbox.take()
    assert not outbox.full
    assert outbox.size == 0


def test_a_long_backlog_is_taken_in_several_messages() -> None:
    outbox = Outbox(10 * MESSAGE_BYTES_MAX)
    half = b"x" * (MESSAGE_BYTES_MAX // 2)
    for _ in range(5):
        outbox.put(half)
    messages = [outbox.take() for _ in range(3)]
    assert messages == [half + b"\n" + half, half + b"\n" + half, half]


def test_replies_go_in_though_it_is_full_until_it_overflows() -> None:
    outbox = Outbox(10)
    for _ in range(OVERFLOW_FACTOR - 1):
        outbox.put(b"x" * 10)
    assert not outbox.overflowed
    outbox.put(b"x" * 10)
    assert outbox.overflowed


async def test_who_waits_for_frames_goes_on_when_one_comes() -> None:
    outbox = Outbox(10)
    waiting = asyncio.ensure_future(outbox.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    outbox.put(b"x")
    await waiting


async def test_who_waits_for_room_goes_on_when_there_is_some() -> None:
    outbox = Outbox(10)
    outbox.put(b"x" * 10)
    waiting = asyncio.ensure_future(outbox.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    outbox.take()
    await waiting


async def test_closing_lets_everybody_go_on() -> None:
    outbox = Outbox(10)
    outbox.put(b"x" * 10)
    waiting = [asyncio.ensure_future(outbox.room())]
    empty = Outbox(10)
    waiting.append(asyncio.ensure_future(empty.wait()))
    await asyncio.sleep(0)
    outbox.close()
    empty.close()
    await asyncio.gather(*waiting)
