"""What a session is refused for, and that a refusal does not change the order of its requests."""

from typing import Any

import pytest

from protocol import frames as wire
from protocol.codec import encode
from server.session import TURN_SECONDS
from tests.rules_bench import Bench


def make(**options: Any) -> Bench:
    bench = Bench(**options)
    bench.connect()
    return bench


def answers(bench: Bench) -> dict[str, str]:
    """Make everything durable; return for each request what it was answered with."""
    bench.journal.flush()
    found: dict[str, str] = {}
    for frame in bench.out.take_all():
        if isinstance(frame, wire.Accepted | wire.Error):
            found[frame.id or ""] = frame.code if isinstance(frame, wire.Error) else "accepted"
    return found


def ask(bench: Bench, *request_ids: str) -> dict[str, str]:
    """Send requests in one message; return what they were answered with."""
    bench.say(*(wire.Request(request_id, "echo") for request_id in request_ids))
    return answers(bench)


def refusal(bench: Bench, request_id: str) -> wire.Error:
    """Send a request that is refused; return why."""
    bench.journal.flush()
    bench.out.take_all()
    bench.send(request_id)
    (frame,) = bench.out.take_all()
    assert isinstance(frame, wire.Error)
    return frame


# Requests per second


def limited() -> Bench:
    """Four at once, then two a second."""
    return make(window=4, requests_per_second=2)


def exhausted() -> Bench:
    bench = limited()
    assert ask(bench, *"abcd") == dict.fromkeys("abcd", "accepted")
    for _ in "abcd":
        bench.run()
    bench.out.take_all()
    return bench


def test_a_request_too_many_in_a_second_is_told_when_to_come_again() -> None:
    frame = refusal(exhausted(), "e")
    assert (frame.code, frame.retryable, frame.retry_after) == ("rate_limited", True, 0.5)


def test_sent_again_then_it_is_accepted() -> None:
    bench = exhausted()
    bench.now += refusal(bench, "e").retry_after or 0
    assert ask(bench, "e") == {"e": "accepted"}


def test_a_whole_window_may_be_sent_at_once_however_low_the_rate() -> None:
    bench = make(window=10, requests_per_second=1)
    assert set(ask(bench, *"abcdefghij").values()) == {"accepted"}


def test_requests_behind_the_refused_one_in_its_message_are_refused_too() -> None:
    bench = exhausted()
    bench.now += 1
    assert ask(bench, *"efghi") == dict.fromkeys("ef", "accepted") | dict.fromkeys(
        "ghi", "rate_limited"
    )


def test_repeats_of_known_requests_do_not_count() -> None:
    bench = limited()
    for _ in range(5):
        assert ask(bench, "a") == {"a": "accepted"}
    assert ask(bench, *"bcd") == dict.fromkeys("bcd", "accepted")


# Nothing overtakes


def test_a_request_that_was_on_its_way_does_not_overtake_the_refused_one() -> None:
    """There would be room for it: it was sent before the client knew of the refusal."""
    bench = exhausted()
    refusal(bench, "e")
    bench.now += 1
    assert ask(bench, "f") == {"f": "rate_limited"}
    assert ask(bench, "e", "f") == {"e": "accepted", "f": "accepted"}


def test_a_refused_request_that_does_not_come_again_keeps_others_back_for_a_while_only() -> None:
    bench = exhausted()
    refusal(bench, "e")
    bench.now += TURN_SECONDS
    assert ask(bench, "f") == {"f": "rate_limited"}
    bench.now += 0.001
    assert ask(bench, "f") == {"f": "accepted"}


def test_a_clock_set_back_does_not_prolong_that() -> None:
    bench = exhausted()
    refusal(bench, "e")
    bench.now -= 3600
    bench.session.receive([], "")
    bench.now += 1
    assert ask(bench, "f") == {"f": "accepted"}


def test_a_refused_request_that_is_cancelled_keeps_nobody_back() -> None:
    bench = exhausted()
    refusal(bench, "e")
    bench.now += 1
    bench.say(wire.Cancel("e"))
    bench.out.take_all()
    assert ask(bench, "f") == {"f": "accepted"}


def test_what_is_sent_on_a_new_connection_was_not_on_its_way() -> None:
    bench = exhausted()
    refusal(bench, "e")
    bench.now += 1
    bench.resume("e1", 4)
    assert ask(bench, "f") == {"f": "accepted"}


@pytest.mark.parametrize("reason", ["memory", "unfinished", "process", "journal"])
def test_whatever_passes_by_itself_keeps_the_order(reason: str) -> None:
    bench = make()

    def close(closed: bool) -> None:
        match reason:
            case "memory":
                bench.memory.limit = 0 if closed else 10_000
            case "unfinished":
                bench.load.unfinished.limit = 0 if closed else 100
            case "process":
                bench.load.memory_high = closed
            case _:
                bench.journal.available = not closed

    code = "journal_unavailable" if reason == "journal" else "overloaded"
    close(True)
    assert refusal(bench, "a").code == code
    close(False)
    assert ask(bench, "b") == {"b": code}
    assert ask(bench, "a", "b") == {"a": "accepted", "b": "accepted"}


def test_a_full_window_keeps_nobody_back_afterwards() -> None:
    """Who sends more than the window has not asked for order."""
    bench = make(window=1)
    bench.accept("a")
    assert refusal(bench, "b").code == "window_exceeded"
    bench.run()
    bench.out.take_all()
    assert ask(bench, "c") == {"c": "accepted"}


# Unfinished requests of all sessions


def test_unfinished_requests_are_counted_until_they_end() -> None:
    bench = make()
    bench.accept("a", "b", "c")
    assert bench.load.unfinished.held == 3
    bench.say(wire.Cancel("c"))
    bench.run()
    assert bench.load.unfinished.held == 1
    bench.crash(0, "t")
    assert bench.load.unfinished.held == 1
    bench.run()
    assert bench.load.unfinished.held == 0


def test_at_the_bound_of_all_unfinished_requests_no_further_one_is_taken() -> None:
    bench = make()
    bench.load.unfinished.limit = 3  # of which one subject may have two
    assert ask(bench, *"abc") == {"a": "accepted", "b": "accepted", "c": "overloaded"}
    assert refusal(bench, "c").retryable
    bench.run()
    bench.out.take_all()
    assert ask(bench, "c") == {"c": "accepted"}


# Params


def test_params_too_big_are_refused_alone_and_for_ever() -> None:
    bench = make(max_params_bytes=100)
    big = encode({"text": "x" * 90})
    for request_id, params in (("a", b"{}"), ("b", big), ("c", b"{}")):
        bench.send(request_id, params=params)
    bench.journal.flush()
    first, *rest = bench.out.take_all()
    assert isinstance(first, wire.Error)
    assert (first.id, first.code, first.retryable) == ("b", "message_too_big", False)
    assert rest == [wire.Accepted("a", 1), wire.Accepted("c", 2)]


def test_params_as_big_as_allowed_are_accepted() -> None:
    bench = make(max_params_bytes=len(encode({"text": "x" * 90})))
    bench.send("a", params=encode({"text": "x" * 90}))
    assert answers(bench) == {"a": "accepted"}
