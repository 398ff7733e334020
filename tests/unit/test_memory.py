"""What sessions hold in memory is counted, bounded in all, and shared fairly among subjects."""

import sys
from typing import Any

import pytest

from protocol import frames as wire
from protocol.codec import encode
from protocol.codes import ErrorCode
from server.journal.entries import encode_error
from server.session import (
    EVENT_BYTES,
    PREPARED_BYTES_MAX,
    PREPARED_FACTOR,
    TOO_LARGE,
    Memory,
    ResultTooLarge,
    Session,
)
from tests.rules_bench import Bench, ListWork


def make(**options: Any) -> Bench:
    bench = Bench(check=lambda _method, _params, _scope: "arguments", **options)
    bench.connect()
    return bench


def text(size: int) -> bytes:
    """Return params of that many bytes."""
    return b'{"text":"%s"}' % (b"x" * (size - 11))


def test_params_count_until_their_request_ends() -> None:
    bench = make()
    bench.send("a", params=text(5000))
    assert bench.memory.held_bytes == 5000
    bench.journal.flush()
    bench.run()
    assert bench.memory.held_bytes == 0


def test_params_of_a_request_cancelled_while_it_waits_are_given_back() -> None:
    bench = make()
    bench.send("a", params=text(5000))
    bench.journal.flush()
    bench.say(wire.Cancel("a"))
    assert bench.memory.held_bytes == bench.session.unacked_bytes < 200


def test_arguments_of_long_params_are_not_kept_beside_them() -> None:
    bench = make()
    bench.send("short", params=text(PREPARED_BYTES_MAX))
    bench.send("long", params=text(PREPARED_BYTES_MAX + 1))
    bench.journal.flush()
    short, long = bench.work.queue
    assert (short.prepared, long.prepared) == ("arguments", None)
    assert (short.kept_bytes, long.kept_bytes) == (
        PREPARED_BYTES_MAX * PREPARED_FACTOR,
        PREPARED_BYTES_MAX + 1,
    )


@pytest.mark.parametrize(
    "beside",
    ['{"type":"ack","seq":0}\n' * 1000, "nonsense\n", ""],
    ids=["acks", "a bad frame", "an unknown field"],
)
def test_a_long_message_does_not_stay_with_the_short_params_in_it(beside: str) -> None:
    bench = make()
    message = f'{beside}{{"type":"request","id":"a","method":"m","junk":"{"x" * 10_000}"}}'
    message = message.replace('"junk"', '"params":{"a":1},"junk"')
    before = sys.getrefcount(message)
    bench.hear(message)
    bench.journal.flush()
    bench.journal.durable.clear()
    assert bytes(bench.work.queue[0].params) == b'{"a":1}'
    assert sys.getrefcount(message) == before


def test_the_text_of_an_error_counts_until_it_is_acknowledged() -> None:
    bench = make()
    bench.accept("a")
    error = encode_error("broke", "x" * 1000, retryable=False)
    bench.session.finish(bench.start(), "broke", error)
    assert bench.session.unacked_bytes == len(error)
    bench.journal.flush()
    bench.say(wire.Ack(1))
    assert bench.memory.held_bytes == 0


def test_an_error_too_long_to_be_kept_becomes_result_too_large() -> None:
    bench = make(max_result_bytes=2000)
    bench.accept("a")
    request = bench.start()
    bench.session.finish(request, "broke", encode_error("broke", "x" * 3000, retryable=False))
    assert request.outcome == ErrorCode.RESULT_TOO_LARGE
    assert bench.session.unacked_bytes < 1000


def test_the_error_in_place_of_an_answer_too_long_counts_until_it_is_acknowledged() -> None:
    bench = make(max_result_bytes=100)
    bench.accept("a")
    bench.session.answer([(bench.work.queue.popleft(), b"x" * 200)])
    assert bench.memory.held_bytes == bench.session.unacked_bytes == len(TOO_LARGE)
    bench.journal.flush()
    bench.say(wire.Ack(1))
    assert bench.memory.held_bytes == 0


def test_a_closed_session_counts_no_errors() -> None:
    bench = make()
    bench.accept("a")
    request = bench.start()
    bench.session.close(cancel=False)
    bench.session.finish(request, "broke", encode_error("broke", "x" * 1000, retryable=False))
    assert bench.memory.held_bytes == 0


def test_what_is_recovered_counts_as_it_did_before() -> None:
    bench = make()
    bench.send("unfinished", params=text(5000))
    bench.send("ended")
    bench.journal.flush()
    bench.work.queue.rotate()
    bench.session.finish(bench.start(), "broke", encode_error("broke", "x", retryable=False))
    bench.journal.flush()
    before = bench.memory.held_bytes
    assert bench.crash(0, "fresh")
    assert bench.memory.held_bytes == before


# Of all sessions together


def another(bench: Bench, subject: str) -> Bench:
    """Return a bench whose session is of `subject`, in the memory of `bench`."""
    other = make()
    other.memory = bench.memory
    other.session = Session.open("t", subject, "", other.rules(), ListWork())
    other.work = other.session.work  # type: ignore[assignment]
    other.connect()
    return other


def fill(bench: Bench) -> None:
    """Give results until there is no room."""
    bench.accept("fill")
    request = bench.start()
    try:
        while True:
            bench.session.result(request, b'"%s"' % (b"x" * (1000 - EVENT_BYTES - 2)))
    except ResultTooLarge:
        pass


def test_a_subject_that_fills_the_memory_is_refused() -> None:
    alice = make()
    alice.memory.limit = 10_000
    fill(alice)
    alice.out.take_all()
    alice.send("more", params=text(1000))
    alice.send("and more")
    assert [f.code for f in alice.out.take_all() if isinstance(f, wire.Error)] == ["overloaded"]


def test_what_one_subject_holds_does_not_keep_another_out() -> None:
    alice = make()
    alice.memory.limit = 10_000
    fill(alice)
    bob = another(alice, "bob")
    bob.accept("a")
    bob.session.result(bob.start(), b'"%s"' % (b"x" * 1000))
    assert not [f for f in bob.out.take_all() if isinstance(f, wire.Error)]


def test_sessions_of_one_subject_have_one_share() -> None:
    alice = make()
    alice.memory.limit = 10_000
    fill(alice)
    again = another(alice, "alice")
    again.accept("a")
    with pytest.raises(ResultTooLarge):
        again.session.result(again.start(), b'"%s"' % (b"x" * 1000))


def take_all(memory: Memory, subject: str) -> int:
    """Take piece by piece what there is; return how much it was."""
    before = memory.held_bytes
    while memory.room(subject) > 0:
        memory.hold(subject, 1)
    return memory.held_bytes - before


def test_who_is_alone_may_have_two_thirds() -> None:
    assert take_all(Memory(3000), "alice") == 2000


def test_something_is_left_for_every_newcomer_and_all_stay_below_the_limit() -> None:
    memory = Memory(10_000)
    shares = [take_all(memory, f"subject {position}") for position in range(8)]
    assert min(shares) > 0
    assert memory.held_bytes < 10_000


def test_who_gave_everything_back_may_have_as_much_as_before() -> None:
    memory = Memory(3000)
    memory.hold("alice", take_all(memory, "alice") * -1)
    assert take_all(memory, "alice") == 2000
    assert memory.held_bytes == 2000


def test_a_message_of_many_frames_is_one_text_in_the_log() -> None:
    """Copying params out of a message must not make the log say it anew."""
    bench = make()
    frames = [wire.Ack(0)] * 100 + [wire.Request("a", "m")]
    message = "\n".join(encode(frame).decode() for frame in frames)
    bench.hear(message)
    assert bench.session._entries[-1].frames is message  # type: ignore[union-attr]
