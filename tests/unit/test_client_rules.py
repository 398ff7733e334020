"""The rules of the client's side of a session, one behaviour at a time."""

from typing import Any

import pytest
from msgspec import Raw

from protocol import frames as wire
from protocol.client_call import ITEM_BYTES, Call, Phase
from protocol.client_errors import ConnectionFailed, RequestFailed, TooManyRequests
from protocol.client_rules import (
    ACK_EVENTS,
    ACK_SECONDS,
    MESSAGE_BYTES_MAX,
    REQUESTS_MAX,
    RETRY_BASE_SECONDS,
    RETRY_CAP_SECONDS,
    Rules,
    backoff,
)
from protocol.codec import FrameError, decode_client_message, encode
from protocol.codes import RETRYABLE, ErrorCode


class Bench:
    """Rules with a clock that stands still, and what goes in and out of them."""

    def __init__(self, resume: str | None = None) -> None:
        self.now = 1000.0
        self.rules = Rules(prefix="r", random=lambda: 1.0, resume=resume)
        self.seq = 0

    def welcome(self, *manifest: wire.RequestStatus, **changes: Any) -> list[Call]:
        fields: dict[str, Any] = {
            "session": "s",
            "resumed": self.rules.session is not None,
            "epoch": "e1",
            "seq": 0,
            "requests": list(manifest),
            "expires_at": 9e9,
            "limits": wire.Limits(4, 1024, 16384, 60),
            "server": wire.ServerInfo("test", "1"),
        } | changes
        if fields["epoch"] != self.rules.epoch:
            self.seq = 0
        return self.rules.welcome(wire.Welcome(**fields), self.now)

    def submit(self, method: str = "m", **params: Any) -> Call:
        return self.rules.submit(method, params)

    def take(self) -> list[Any]:
        """Return the frames of the next message."""
        message = self.rules.take()
        return list(decode_client_message(message)) if message else []

    def sent_ids(self) -> list[str]:
        return [frame.id for frame in self.take() if isinstance(frame, wire.Request)]

    def receive(self, *frames: wire.ServerFrame | FrameError) -> None:
        self.rules.receive(frames, self.now)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.rules.tick(self.now)

    # What a server says

    def accept(self, *calls: Call) -> None:
        for call in calls:
            self.receive(wire.Accepted(call.id, call.number))

    def result(self, call: Call, index: int = 0, attempt: int = 1, data: object = "x") -> None:
        self.seq += 1
        self.receive(wire.Result(call.id, attempt, index, Raw(encode(data)), self.seq))

    def done(self, call: Call, results: int = 0, attempt: int = 1) -> None:
        self.seq += 1
        self.receive(wire.Done(call.id, self.seq, attempt, results))

    def refuse(
        self, call: Call, code: str = "overloaded", retry_after: float | None = None
    ) -> None:
        self.receive(wire.Error(code, "no", code in RETRYABLE, id=call.id, retry_after=retry_after))

    def running(self, **params: Any) -> Call:
        """Return a request that was accepted."""
        call = self.submit(**params)
        self.take()
        self.accept(call)
        return call

    def reconnect(self, *manifest: wire.RequestStatus, **changes: Any) -> None:
        self.rules.lost()
        self.welcome(*manifest, **changes)


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.welcome()
    return bench


def listed(call: Call, state: Any = "running", attempt: int = 1) -> wire.RequestStatus:
    return wire.RequestStatus(call.id, call.number, state, attempt, 0)


def taken(call: Call) -> list[bytes]:
    found: list[bytes] = []
    while (item := call.take()) is not None:
        found.append(item[1])
    return found


def code_of(call: Call) -> str:
    assert isinstance(call.error, RequestFailed)
    return call.error.code


# Greeting


def test_the_first_hello_asks_for_no_session() -> None:
    assert decode_client_message(Bench().rules.hello("t")) == [wire.Hello(token="t")]


def test_hello_after_a_loss_names_session_epoch_and_the_last_event(bench: Bench) -> None:
    bench.result(bench.running())
    bench.rules.lost()
    assert decode_client_message(bench.rules.hello("t")) == [
        wire.Hello(token="t", session="s", epoch="e1", seq=1)
    ]


def test_nothing_is_sent_before_welcome() -> None:
    bench = Bench()
    bench.submit()
    assert bench.take() == []


# Window, order, batches


def test_ids_are_unique_and_carry_the_prefix(bench: Bench) -> None:
    assert [bench.submit().id, bench.submit().id] == ["r-1", "r-2"]


def test_requests_that_are_ready_share_a_message(bench: Bench) -> None:
    bench.submit()
    bench.submit()
    assert bench.sent_ids() == ["r-1", "r-2"]


def test_a_request_is_encoded_with_its_options(bench: Bench) -> None:
    bench.rules.submit("m", {"a": [1]}, "id", 2.5, "cancel")
    assert bench.take() == [wire.Request("id", "m", Raw(b'{"a":[1]}'), 2.5, "cancel")]


def test_no_more_than_the_window_is_sent(bench: Bench) -> None:
    for _ in range(6):
        bench.submit()
    assert bench.sent_ids() == ["r-1", "r-2", "r-3", "r-4"]
    assert bench.sent_ids() == []


def test_the_next_request_is_sent_when_one_ends(bench: Bench) -> None:
    calls = [bench.submit() for _ in range(6)]
    bench.take()
    bench.accept(*calls[:4])
    bench.done(calls[0])
    assert bench.sent_ids() == ["r-5"]


def test_a_message_does_not_exceed_the_servers_limit(bench: Bench) -> None:
    for _ in range(4):
        bench.submit(text="x" * 400)
    sizes: list[int] = []
    while message := bench.rules.take():
        sizes.append(len(message))
    assert len(sizes) == 2
    assert max(sizes) <= 1024


@pytest.mark.parametrize("spare", [0, -1])
def test_a_request_that_fits_exactly_is_sent_and_one_byte_more_is_not(spare: int) -> None:
    bench = Bench()
    bench.welcome()
    size = len(encode(wire.Request("r-1", "m", Raw(encode({"text": ""})))))
    call = bench.submit(text="x" * (1024 - size - spare))
    bench.take()
    assert call.ended == (spare < 0)


def test_a_request_that_is_too_big_fails_and_the_others_go_on(bench: Bench) -> None:
    bench.submit()
    big = bench.submit(text="x" * 2000)
    bench.submit()
    assert bench.sent_ids() == ["r-1", "r-3"]
    assert code_of(big) == "message_too_big"


def test_a_message_stays_small_when_the_server_would_take_more() -> None:
    bench = Bench()
    bench.welcome(limits=wire.Limits(10_000, 2**30, 2**30, 60))
    for _ in range(1000):
        bench.submit(text="x" * 1000)
    assert len(bench.rules.take()) <= MESSAGE_BYTES_MAX


def test_a_request_can_be_sent_while_no_window_is_free_only_later(bench: Bench) -> None:
    for _ in range(3):
        bench.submit()
    assert bench.rules.has_room
    bench.submit()
    assert not bench.rules.has_room


def test_more_than_ten_thousand_unfinished_requests_are_refused(bench: Bench) -> None:
    for _ in range(REQUESTS_MAX):
        bench.submit()
    with pytest.raises(TooManyRequests):
        bench.submit()


def test_an_id_of_an_unfinished_request_is_refused(bench: Bench) -> None:
    bench.rules.submit("m", {}, "same")
    with pytest.raises(ValueError, match="same"):
        bench.rules.submit("m", {}, "same")


@pytest.mark.parametrize("length", [0, 129])
def test_an_id_the_protocol_does_not_allow_is_refused(bench: Bench, length: int) -> None:
    with pytest.raises(ValueError, match="1 to 128 characters"):
        bench.rules.submit("m", {}, "x" * length)


def test_params_that_json_cannot_hold_are_refused_and_leave_nothing_behind(bench: Bench) -> None:
    with pytest.raises(TypeError):
        bench.submit(text=object())
    assert not bench.rules.calls


# Results and the end


def test_results_come_in_order_and_then_the_end(bench: Bench) -> None:
    call = bench.running()
    bench.result(call, 0, data="a")
    bench.result(call, 1, data="b")
    bench.done(call, results=2)
    assert taken(call) == [b'"a"', b'"b"']
    assert (call.ended, call.error) == (True, None)


def test_an_error_event_ends_the_request_with_code_message_and_details(bench: Bench) -> None:
    call = bench.running()
    bench.receive(wire.Error("broke", "m", False, call.id, seq=1, attempt=1, details={"a": 1}))
    assert isinstance(call.error, RequestFailed)
    assert (call.error.code, call.error.message, call.error.details, call.error.id) == (
        "broke",
        "m",
        {"a": 1},
        "r-1",
    )


def test_partial_results_stay_when_the_request_then_fails(bench: Bench) -> None:
    call = bench.running()
    bench.result(call)
    bench.receive(wire.Error("broke", "m", False, call.id, seq=2, attempt=1))
    assert taken(call) == [b'"x"']


def test_the_position_is_known_once_accepted(bench: Bench) -> None:
    call = bench.submit()
    bench.take()
    bench.receive(wire.Accepted(call.id, 17))
    assert call.n == 17


def test_done_of_a_request_may_come_after_results_of_the_next(bench: Bench) -> None:
    first, second = bench.running(), bench.running()
    bench.result(second)
    bench.done(first)
    bench.done(second, results=1)
    assert (first.error, second.error, taken(second)) == (None, None, [b'"x"'])


def test_a_refusal_ends_only_its_request(bench: Bench) -> None:
    call, other = bench.submit(), bench.submit()
    bench.take()
    bench.refuse(call, "unknown_method")
    assert code_of(call) == "unknown_method"
    assert not other.ended


def test_unknown_frames_are_ignored(bench: Bench) -> None:
    call = bench.running()
    bench.receive(FrameError("of a newer server"), wire.Started(call.id, 1))
    assert not call.ended


def test_missing_results_of_an_ended_request_are_an_error(bench: Bench) -> None:
    call = bench.running()
    bench.result(call, 0)
    bench.done(call, results=3)
    assert code_of(call) == "results_lost"


def test_results_of_a_live_method_may_be_missing(bench: Bench) -> None:
    call = bench.running()
    bench.receive(wire.Result(call.id, 1, 5, Raw(b"1")))
    bench.done(call, results=9)
    assert call.error is None


def test_all_results_of_a_live_method_may_be_missing(bench: Bench) -> None:
    call = bench.running()
    bench.done(call, results=9)
    assert call.error is None


def test_when_event_numbers_are_missing_results_that_did_not_come_were_not_live(
    bench: Bench,
) -> None:
    call = bench.running()
    bench.seq += 3
    bench.done(call, results=3)
    assert code_of(call) == "results_lost"


def test_results_that_wait_are_counted_until_they_are_taken(bench: Bench) -> None:
    call = bench.running()
    bench.result(call)
    assert bench.rules.buffer.size_bytes == 3 + ITEM_BYTES
    call.take()
    assert bench.rules.buffer.size_bytes == 0


def test_results_nobody_wants_are_not_counted(bench: Bench) -> None:
    call = bench.running()
    bench.result(call, 0)
    call.drop()
    bench.result(call, 1)
    assert bench.rules.buffer.size_bytes == 0
    assert call.last == b'"x"'


# Acknowledgement


def test_events_are_acknowledged_together_after_a_while(bench: Bench) -> None:
    call = bench.running()
    bench.result(call, 0)
    bench.result(call, 1)
    assert bench.take() == []
    assert bench.rules.deadline == bench.now + ACK_SECONDS
    bench.pass_time(ACK_SECONDS)
    assert bench.take() == [wire.Ack(2)]
    assert bench.rules.deadline is None


def test_many_events_are_acknowledged_at_once(bench: Bench) -> None:
    call = bench.running()
    for index in range(ACK_EVENTS):
        bench.result(call, index, data=1)
    assert bench.take() == [wire.Ack(ACK_EVENTS)]


def test_many_bytes_are_acknowledged_before_the_server_holds_too_many(bench: Bench) -> None:
    bench.result(bench.running(), data="x" * 5000)
    assert bench.take() == [wire.Ack(1)]


def test_events_without_a_number_are_not_acknowledged(bench: Bench) -> None:
    bench.receive(wire.Result(bench.running().id, 1, 0, Raw(b"1")))
    assert bench.rules.deadline is None


def test_a_lost_acknowledgement_is_repeated_on_the_next_connection(bench: Bench) -> None:
    call = bench.running()
    bench.result(call)
    bench.pass_time(ACK_SECONDS)
    bench.take()
    bench.reconnect(listed(call))
    bench.pass_time(ACK_SECONDS)
    assert bench.take() == [wire.Ack(1)]


def test_an_id_that_is_used_again_is_sent_after_the_acknowledgement_of_its_end(
    bench: Bench,
) -> None:
    call = bench.rules.submit("m", {}, "mine")
    bench.take()
    bench.done(call)
    bench.rules.submit("m", {}, "mine")
    assert [type(frame) for frame in bench.take()] == [wire.Ack, wire.Request]


def test_a_request_whose_end_was_acknowledged_long_ago_has_lost_its_results(bench: Bench) -> None:
    call = bench.submit()
    bench.take()
    bench.receive(wire.Accepted(call.id, 1, duplicate=True, state="acknowledged"))
    assert code_of(call) == "results_lost"


# Refused for now


@pytest.mark.parametrize("code", sorted(RETRYABLE))
def test_a_request_refused_for_now_is_sent_again_after_a_while(bench: Bench, code: str) -> None:
    call = bench.submit()
    bench.take()
    bench.refuse(call, code)
    assert bench.sent_ids() == []
    assert bench.rules.deadline == bench.now + RETRY_BASE_SECONDS
    bench.pass_time(RETRY_BASE_SECONDS)
    assert bench.sent_ids() == [call.id]


def test_the_server_may_ask_for_a_longer_wait(bench: Bench) -> None:
    call = bench.submit()
    bench.take()
    bench.refuse(call, retry_after=7)
    assert bench.rules.deadline == bench.now + 7


def test_the_wait_grows_with_each_refusal(bench: Bench) -> None:
    call = bench.submit()
    waits: list[float] = []
    for _ in range(9):
        bench.take()
        bench.refuse(call)
        assert bench.rules.deadline is not None
        waits.append(bench.rules.deadline - bench.now)
        bench.pass_time(waits[-1])
    assert waits == pytest.approx(
        [min(RETRY_BASE_SECONDS * 2**n, RETRY_CAP_SECONDS) for n in range(9)]
    )


def test_refused_requests_are_sent_again_in_their_order_before_later_ones(bench: Bench) -> None:
    calls = [bench.submit() for _ in range(3)]
    bench.take()
    bench.submit()
    bench.refuse(calls[0])
    bench.refuse(calls[1])
    bench.refuse(calls[2])
    bench.pass_time(1)
    assert bench.sent_ids() == ["r-1"]  # alone, to see whether it is taken
    bench.accept(calls[0])
    assert bench.sent_ids() == ["r-2", "r-3", "r-4"]


def test_nothing_is_sent_until_all_on_their_way_are_answered(bench: Bench) -> None:
    calls = [bench.submit() for _ in range(2)]
    bench.take()
    bench.submit()
    bench.refuse(calls[0])
    bench.pass_time(1)
    assert bench.sent_ids() == []
    bench.accept(calls[1])
    assert bench.sent_ids() == ["r-1"]


def test_a_request_accepted_behind_a_refused_one_does_not_end_the_wait(bench: Bench) -> None:
    calls = [bench.submit() for _ in range(2)]
    bench.take()
    bench.refuse(calls[0])
    bench.accept(calls[1])
    assert bench.sent_ids() == []


def test_a_full_window_is_answered_with_an_acknowledgement(bench: Bench) -> None:
    bench.result(bench.running())
    call = bench.submit()
    bench.take()
    bench.refuse(call, ErrorCode.WINDOW_EXCEEDED)
    assert bench.take() == [wire.Ack(1)]


# Cancel


def test_cancel_of_a_request_that_was_not_sent_ends_it_here(bench: Bench) -> None:
    call = bench.submit()
    bench.rules.cancel(call)
    assert code_of(call) == "cancelled"
    assert bench.take() == []


def test_cancel_of_a_refused_request_ends_it_here(bench: Bench) -> None:
    call = bench.submit()
    bench.take()
    bench.refuse(call)
    bench.rules.cancel(call)
    assert code_of(call) == "cancelled"


def test_cancel_of_a_request_that_may_have_arrived_waits_for_the_server(bench: Bench) -> None:
    call = bench.submit()
    bench.take()
    bench.reconnect()
    bench.rules.cancel(call)
    assert not call.ended
    assert [*bench.take(), *bench.take()][-1] == wire.Cancel(call.id)


def test_cancel_of_a_sent_request_is_sent_once(bench: Bench) -> None:
    call = bench.running()
    bench.rules.cancel(call)
    bench.rules.cancel(call)
    assert bench.take() == [wire.Cancel(call.id)]
    assert not call.ended


def test_cancel_of_an_ended_request_does_nothing(bench: Bench) -> None:
    call = bench.running()
    bench.done(call)
    bench.rules.cancel(call)
    assert bench.take() == []
    assert call.error is None


def test_a_cancel_refused_because_it_came_too_late_changes_nothing(bench: Bench) -> None:
    call = bench.running()
    bench.rules.cancel(call)
    bench.refuse(call, ErrorCode.BAD_FRAME)
    bench.done(call)
    assert call.error is None


def test_a_cancelled_request_that_is_refused_for_now_is_not_sent_again(bench: Bench) -> None:
    call = bench.submit()
    bench.take()
    bench.rules.cancel(call)
    bench.refuse(call)
    assert code_of(call) == "cancelled"


def test_cancel_is_sent_again_after_a_loss(bench: Bench) -> None:
    call = bench.running()
    bench.rules.cancel(call)
    bench.take()
    bench.reconnect(listed(call))
    assert bench.take() == [wire.Cancel(call.id)]


def test_cancel_while_offline_is_sent_on_the_next_connection(bench: Bench) -> None:
    call = bench.running()
    bench.rules.lost()
    bench.rules.cancel(call)
    bench.welcome(listed(call))
    assert bench.take() == [wire.Cancel(call.id)]


def test_a_cancelled_request_that_may_have_arrived_is_sent_again_with_its_cancel(
    bench: Bench,
) -> None:
    call = bench.submit()
    bench.take()
    bench.rules.lost()
    bench.rules.cancel(call)
    bench.welcome()
    assert [*bench.take(), *bench.take()] == [
        wire.Request(call.id, "m", Raw(b"{}")),
        wire.Cancel(call.id),
    ]


# Resume in the same epoch


def test_events_seen_before_are_dropped(bench: Bench) -> None:
    call = bench.running()
    bench.result(call)
    bench.reconnect(listed(call))
    bench.seq = 0
    bench.result(call)
    assert taken(call) == [b'"x"']


def test_events_seen_before_do_not_turn_back_the_acknowledgement(bench: Bench) -> None:
    call = bench.running()
    bench.result(call, 0)
    bench.result(call, 1)
    bench.receive(wire.Result(call.id, 1, 0, Raw(b"1"), 1))
    bench.pass_time(ACK_SECONDS)
    assert bench.take() == [wire.Ack(2)]


def test_a_request_the_manifest_does_not_know_is_sent_again_with_its_id(bench: Bench) -> None:
    call = bench.submit(a=1)
    before = bench.take()
    bench.reconnect()
    assert bench.take() == before
    assert call.phase is Phase.SENT


def test_a_request_in_the_manifest_is_not_sent_again(bench: Bench) -> None:
    call = bench.submit()
    bench.take()
    bench.reconnect(listed(call))
    assert bench.take() == []
    assert call.n == 1


def test_requests_are_sent_again_in_their_order_before_new_ones(bench: Bench) -> None:
    calls = [bench.submit() for _ in range(3)]
    bench.take()
    bench.rules.lost()
    bench.submit()
    bench.welcome(listed(calls[0]))
    assert bench.sent_ids() == ["r-2", "r-3", "r-4"]


def test_a_request_accepted_after_the_manifest_was_made_is_not_sent(bench: Bench) -> None:
    call = bench.submit()
    bench.take()
    bench.reconnect()
    bench.accept(call)
    assert bench.take() == []


def test_a_request_accepted_after_the_manifest_was_made_counts_for_the_window(
    bench: Bench,
) -> None:
    calls = [bench.submit() for _ in range(5)]
    bench.take()
    bench.reconnect()
    bench.accept(*calls[:2])
    assert bench.sent_ids() == ["r-3", "r-4"]


def test_requests_in_the_manifest_count_for_the_window(bench: Bench) -> None:
    calls = [bench.submit() for _ in range(6)]
    bench.take()
    bench.reconnect(*map(listed, calls[:3]))
    assert bench.sent_ids() == ["r-4"]


def test_an_accepted_request_the_manifest_does_not_know_has_lost_its_results(
    bench: Bench,
) -> None:
    call = bench.running()
    bench.reconnect()
    assert code_of(call) == "results_lost"
    assert bench.take() == []


# A new epoch


def test_event_numbers_start_again_in_a_new_epoch(bench: Bench) -> None:
    call = bench.running()
    bench.result(call, 0)
    bench.reconnect(listed(call), epoch="e2")
    bench.result(call, 0, attempt=2, data="y")
    bench.pass_time(ACK_SECONDS)
    assert bench.take() == [wire.Ack(1)]


def test_a_higher_attempt_drops_the_partial_results_of_the_older(bench: Bench) -> None:
    call = bench.running()
    bench.result(call, 0, data="old")
    bench.reconnect(listed(call, attempt=2), epoch="e2")
    bench.result(call, 0, attempt=2, data="new")
    bench.done(call, results=1, attempt=2)
    assert taken(call) == [b'"new"']
    assert bench.rules.buffer.size_bytes == 0


def test_the_end_of_a_higher_attempt_drops_the_partial_results_too(bench: Bench) -> None:
    call = bench.running()
    bench.result(call)
    bench.done(call, results=0, attempt=2)
    assert (taken(call), call.last, call.error) == ([], None, None)


def test_results_of_an_older_attempt_are_dropped(bench: Bench) -> None:
    call = bench.running()
    bench.result(call, 0, attempt=2, data="new")
    bench.result(call, 1, attempt=1, data="old")
    assert taken(call) == [b'"new"']


def test_results_of_the_same_attempt_sent_again_are_dropped(bench: Bench) -> None:
    call = bench.running()
    bench.result(call, 0, data="a")
    bench.result(call, 1, data="b")
    bench.reconnect(listed(call, "ended"), epoch="e2")
    bench.result(call, 1, data="b")  # the acknowledgement of index 0 had arrived
    bench.result(call, 2, data="c")
    bench.done(call, results=3)
    assert taken(call) == [b'"a"', b'"b"', b'"c"']
    assert call.error is None


def test_events_of_requests_seen_to_end_are_ignored_but_acknowledged(bench: Bench) -> None:
    call = bench.running()
    bench.result(call)
    bench.done(call, results=1)
    bench.reconnect(listed(call, "ended"), epoch="e2")
    bench.result(call)
    bench.done(call, results=1)
    bench.pass_time(ACK_SECONDS)
    assert bench.take() == [wire.Ack(2)]
    assert taken(call) == [b'"x"']


# A session the server does not know


def test_a_cancelled_request_that_was_not_accepted_ends_with_its_session(bench: Bench) -> None:
    call = bench.submit()
    bench.take()
    bench.rules.cancel(call)
    bench.reconnect(session="s2", resumed=False)
    assert code_of(call) == "cancelled"
    assert bench.sent_ids() == []


def test_cancel_of_a_request_that_waits_in_a_new_session_ends_it_here(bench: Bench) -> None:
    call = bench.submit()
    bench.take()
    bench.reconnect(session="s2", resumed=False)
    bench.rules.cancel(call)
    assert code_of(call) == "cancelled"


def test_requests_never_accepted_are_sent_in_the_new_session(bench: Bench) -> None:
    bench.submit()
    bench.take()
    bench.reconnect(session="s2", resumed=False, reason="unknown_session")
    assert bench.sent_ids() == ["r-1"]
    assert bench.rules.session == "s2"


def test_accepted_requests_end_with_session_lost_and_are_not_sent_again(bench: Bench) -> None:
    call = bench.running()
    bench.reconnect(session="s2", resumed=False, reason="unknown_session")
    assert code_of(call) == "session_lost"
    assert bench.take() == []


def test_event_numbers_start_again_in_a_new_session(bench: Bench) -> None:
    bench.result(bench.running())
    bench.reconnect(session="s2", resumed=False)
    call = bench.running()
    bench.seq = 0
    bench.result(call)
    assert taken(call) == [b'"x"']


# Taking over a session of another program


def test_hello_of_a_program_that_takes_over_names_only_the_session() -> None:
    assert decode_client_message(Bench(resume="s").rules.hello("t")) == [
        wire.Hello(token="t", session="s")
    ]


def test_requests_of_the_manifest_are_taken_over() -> None:
    bench = Bench(resume="s")
    (call,) = bench.welcome(wire.RequestStatus("theirs", 5, "running", 1, 0))
    bench.result(call)
    bench.done(call, results=1)
    assert (call.id, call.n, taken(call), call.error) == ("theirs", 5, [b'"x"'], None)


def test_results_that_the_other_program_acknowledged_are_known_to_be_missing() -> None:
    bench = Bench(resume="s")
    (call,) = bench.welcome(wire.RequestStatus("theirs", 5, "ended", 1, 3))
    bench.done(call, results=3)
    assert code_of(call) == "results_lost"


def test_a_session_that_is_not_there_cannot_be_taken_over() -> None:
    with pytest.raises(ConnectionFailed, match="not there"):
        Bench(resume="s").welcome(session="s2", resumed=False, reason="unknown_session")


def test_requests_are_taken_over_once_only() -> None:
    bench = Bench(resume="s")
    (call,) = bench.welcome(wire.RequestStatus("theirs", 5, "running", 1, 0))
    bench.done(call)
    bench.reconnect(wire.RequestStatus("theirs", 5, "ended", 1, 0), epoch="e2")
    assert not bench.rules.calls


# The end


def test_bye_comes_after_the_last_acknowledgement_and_what_may_be_sent(bench: Bench) -> None:
    bench.result(bench.running())
    bench.submit()
    bench.rules.acknowledge()
    bench.rules.bye(cancel=True)
    assert [type(frame) for frame in bench.take()] == [wire.Ack, wire.Request, wire.Bye]
    assert bench.rules.bye_sent


def test_nothing_is_sent_after_bye(bench: Bench) -> None:
    bench.rules.bye(cancel=False)
    bench.take()
    bench.submit()
    assert bench.take() == []


def test_giving_up_ends_every_request(bench: Bench) -> None:
    calls = [bench.running(), bench.submit()]
    bench.rules.fail("gone", 4509)
    assert [str(call.error) for call in calls] == ["gone", "gone"]


def test_backoff_doubles_up_to_its_cap_and_is_jittered() -> None:
    assert [backoff(n, 1, 5, lambda: 1.0) for n in (0, 1, 2, 3, 1000)] == [1, 2, 4, 5, 5]
    assert backoff(3, 1, 5, lambda: 0.0) == 0
