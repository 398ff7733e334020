"""The rules of one session, one behaviour at a time."""

from typing import Any

import pytest
from msgspec import Raw

from protocol import frames as wire
from protocol.codec import decode_client_message
from protocol.codes import ErrorCode
from server.journal.entries import (
    Accepted,
    Acked,
    Authorized,
    Closed,
    Entry,
    Finished,
    Snapshot,
    Started,
)
from server.journal.state import RequestState, State, fold
from server.outbox import Outbox
from server.session import EVENT_BYTES, PIECE_BYTES, Refused, ResultTooLarge
from tests.rules_bench import Bench


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.connect()
    return bench


def only(bench: Bench) -> wire.ServerFrame:
    frames = bench.out.take_all()
    assert len(frames) == 1, frames
    return frames[0]


def test_welcome_of_a_new_session_names_session_and_epoch() -> None:
    welcome = Bench().connect()
    assert (welcome.session, welcome.resumed, welcome.epoch, welcome.seq) == ("s", False, "e1", 0)


def test_accepted_is_sent_only_after_the_commit(bench: Bench) -> None:
    bench.send("a")
    assert not bench.out.frames
    bench.journal.flush()
    assert only(bench) == wire.Accepted("a", 1)


def test_a_request_reaches_the_worker_only_after_the_commit(bench: Bench) -> None:
    bench.send("a")
    assert not bench.work.queue
    bench.journal.flush()
    assert [r.id for r in bench.work.queue] == ["a"]


def test_requests_are_numbered_in_the_order_they_came(bench: Bench) -> None:
    bench.accept("b", "a", "c")
    assert [(r.id, r.n) for r in bench.work.queue] == [("b", 1), ("a", 2), ("c", 3)]


def test_a_result_is_sent_at_once(bench: Bench) -> None:
    bench.accept("a")
    bench.out.take_all()
    bench.session.result(bench.start(), b'"x"')
    assert only(bench) == wire.Result("a", 1, 0, Raw(b'"x"'), seq=1)


def test_done_is_sent_only_after_the_commit(bench: Bench) -> None:
    bench.accept("a")
    bench.out.take_all()
    bench.run(durable=False)
    assert not bench.out.frames
    bench.journal.flush()
    assert only(bench) == wire.Done("a", 1, 1, 0)


def test_an_error_that_ends_a_request_carries_seq_attempt_and_details(bench: Bench) -> None:
    bench.accept("a")
    bench.out.take_all()
    request = bench.start()
    bench.session.finish(
        request, "broke", b'{"code":"broke","message":"m","retryable":false,"details":[1]}'
    )
    bench.journal.flush()
    assert only(bench) == wire.Error(
        "broke", "m", retryable=False, id="a", seq=1, attempt=1, details=[1]
    )


def test_a_known_id_is_not_run_again_and_answered_as_duplicate(bench: Bench) -> None:
    bench.accept("a")
    bench.out.take_all()
    bench.send("a")
    assert only(bench) == wire.Accepted("a", 1, duplicate=True, state="waiting")
    assert len(bench.work.queue) == 1


def test_a_known_id_whose_commit_is_on_its_way_is_answered_once(bench: Bench) -> None:
    bench.send("a")
    bench.send("a")
    bench.journal.flush()
    assert only(bench) == wire.Accepted("a", 1)


@pytest.mark.parametrize(("method", "params"), [("other", b"{}"), ("echo", b'{"x":1}')])
def test_a_known_id_with_another_request_is_refused(
    bench: Bench, method: str, params: bytes
) -> None:
    bench.accept("a")
    bench.out.take_all()
    bench.send("a", method, params)
    frame = only(bench)
    assert isinstance(frame, wire.Error)
    assert (frame.code, frame.id, frame.seq) == ("id_conflict", "a", None)


def test_an_acknowledged_id_is_still_recognised(bench: Bench) -> None:
    bench.accept("a")
    bench.run()
    bench.say(wire.Ack(1))
    bench.out.take_all()
    bench.send("a")
    assert only(bench) == wire.Accepted("a", 1, duplicate=True, state="acknowledged")
    assert not bench.work.queue


def test_the_last_thousand_acknowledged_ids_are_remembered(bench: Bench) -> None:
    for number in range(1001):
        bench.accept(str(number))
        bench.run()
        bench.say(wire.Ack(number + 1))
    bench.out.take_all()
    bench.send("1")
    assert isinstance(only(bench), wire.Accepted)
    assert not bench.work.queue


def test_the_memory_of_acknowledged_ids_is_bounded(bench: Bench) -> None:
    for number in range(2500):
        bench.accept(str(number))
        bench.run()
        bench.say(wire.Ack(number + 1))
    state = bench.session.state
    assert len(state.recent) + len(state.older) < 2001


def test_the_window_counts_unfinished_requests(bench: Bench) -> None:
    bench.accept("a", "b", "c", "d")
    bench.out.take_all()
    bench.send("e")
    frame = only(bench)
    assert isinstance(frame, wire.Error)
    assert (frame.code, frame.id, frame.retryable) == ("window_exceeded", "e", True)


def test_a_finished_request_makes_room_in_the_window(bench: Bench) -> None:
    bench.accept("a", "b", "c", "d")
    bench.run()
    bench.accept("e")
    assert bench.work.queue[-1].id == "e"


def test_cancelled_requests_still_in_the_queue_count_for_the_window(bench: Bench) -> None:
    """Otherwise cancelling would let a client grow the worker's queue without bound."""
    bench.accept("a", "b", "c", "d")
    for request_id in "abcd":
        bench.say(wire.Cancel(request_id))
    bench.journal.flush()
    bench.out.take_all()
    bench.send("e")
    assert isinstance(only(bench), wire.Error)


def test_too_many_unacknowledged_requests_are_refused_until_acked() -> None:
    bench = Bench(max_unacked=2)
    bench.connect()
    for request_id in "ab":
        bench.accept(request_id)
        bench.run()
    bench.send("c")
    assert bench.out.take_all()[-1].code == "window_exceeded"  # type: ignore[union-attr]
    bench.say(wire.Ack(1))
    bench.accept("c")
    assert bench.work.queue[-1].id == "c"


def test_nothing_is_accepted_while_the_journal_is_down(bench: Bench) -> None:
    bench.journal.available = False
    bench.send("a")
    frame = only(bench)
    assert isinstance(frame, wire.Error)
    assert (frame.code, frame.retryable) == ("journal_unavailable", True)
    assert not bench.session.state.live


def test_what_the_check_refuses_is_not_accepted() -> None:
    def check(method: str, params: Raw, scope: str) -> object:
        raise Refused(ErrorCode.UNKNOWN_METHOD, "no such method")

    bench = Bench(check=check)
    bench.connect()
    bench.send("a")
    frame = only(bench)
    assert isinstance(frame, wire.Error)
    assert (frame.code, frame.message, frame.id) == ("unknown_method", "no such method", "a")
    assert not bench.session.state.live


def test_cancelling_a_waiting_request_ends_it_without_running_it(bench: Bench) -> None:
    bench.accept("a")
    bench.say(wire.Cancel("a"))
    bench.journal.flush()
    frame = bench.out.take_all()[-1]
    assert isinstance(frame, wire.Error)
    assert (frame.code, frame.seq, frame.attempt) == ("cancelled", 1, 0)
    assert bench.work.queue[0].outcome == "cancelled"


def test_cancelling_the_running_request_asks_the_worker(bench: Bench) -> None:
    bench.accept("a")
    bench.start()
    bench.say(wire.Cancel("a"))
    assert bench.work.stopped == [("a", ErrorCode.CANCELLED)]


def test_cancelling_an_ended_request_changes_nothing(bench: Bench) -> None:
    bench.accept("a")
    bench.run()
    bench.out.take_all()
    bench.say(wire.Cancel("a"))
    assert not bench.out.frames
    assert not bench.journal.pending


def test_cancelling_an_unknown_id_is_refused(bench: Bench) -> None:
    bench.say(wire.Cancel("nope"))
    frame = only(bench)
    assert isinstance(frame, wire.Error)
    assert (frame.code, frame.id) == ("bad_frame", "nope")


def test_ack_beyond_the_last_event_is_refused(bench: Bench) -> None:
    bench.say(wire.Ack(1))
    frame = only(bench)
    assert isinstance(frame, wire.Error)
    assert frame.code == "bad_frame"


def test_an_old_ack_is_harmless(bench: Bench) -> None:
    bench.accept("a")
    bench.run(b"1")
    bench.say(wire.Ack(2))
    bench.out.take_all()
    bench.say(wire.Ack(1))
    assert not bench.out.frames


def test_acknowledged_results_are_forgotten(bench: Bench) -> None:
    bench.accept("a")
    bench.run(b"1", b"2")
    bench.say(wire.Ack(3))
    assert not bench.session.state.live
    assert bench.session.unacked_bytes == 0


def test_results_of_a_running_request_can_be_acknowledged(bench: Bench) -> None:
    bench.accept("a")
    request = bench.start()
    for data in (b"1", b"2", b"3"):
        bench.session.result(request, data)
    bench.say(wire.Ack(2))
    assert bench.session.unacked_bytes == 1 + EVENT_BYTES
    bench.session.finish(request, "done")
    bench.journal.flush()
    bench.resume("e1", 0)
    frames = bench.out.take_all()
    assert [(f.seq, type(f).__name__) for f in frames] == [(3, "Result"), (4, "Done")]  # type: ignore[union-attr]


def test_resume_sends_what_came_after_the_last_seen_event(bench: Bench) -> None:
    bench.accept("a")
    bench.run(b"1", b"2")
    bench.resume("e1", 1)
    assert [f.seq for f in bench.out.take_all()] == [2, 3]  # type: ignore[union-attr]


def test_resume_with_a_foreign_epoch_sends_everything_unacknowledged(bench: Bench) -> None:
    bench.accept("a")
    bench.run(b"1", b"2")
    bench.say(wire.Ack(1))
    bench.resume("e0", 3)
    assert [f.seq for f in bench.out.take_all()] == [2, 3]  # type: ignore[union-attr]


def test_the_manifest_lists_what_is_unfinished_or_unacknowledged(bench: Bench) -> None:
    bench.accept("gone", "ended", "running", "waiting")
    bench.run()
    bench.say(wire.Ack(1))
    bench.run(b"1", b"2")
    bench.session.result(bench.start(), b"1")
    bench.send("uncommitted")
    welcome = bench.resume("e1", 1)
    assert [(r.id, r.n, r.state, r.attempt, r.results) for r in welcome.requests] == [
        ("ended", 2, "ended", 1, 2),
        ("running", 3, "running", 1, 1),
        ("waiting", 4, "waiting", 0, 0),
    ]


def test_a_request_whose_end_is_not_durable_is_still_running_for_the_client(bench: Bench) -> None:
    bench.accept("a")
    bench.run(durable=False)
    assert bench.resume("e1", 0).requests[0].state == "running"


def test_events_wait_for_room_and_stay_in_order(bench: Bench) -> None:
    bench.accept("a")
    bench.run(*[b"%d" % i for i in range(10)])
    bench.resume("e1", 0, room=3)
    seqs: list[int] = []
    while bench.out.frames:
        seqs += [f.seq for f in bench.out.take_all()]  # type: ignore[union-attr]
        bench.session.refill()
    assert seqs == list(range(1, 12))


def test_live_events_wait_until_the_backlog_is_through(bench: Bench) -> None:
    bench.accept("a", "b")
    bench.run(b"1", b"2", b"3")
    bench.resume("e1", 0, room=2)
    bench.run(b"4")
    seqs: list[int] = []
    while bench.out.frames:
        seqs += [f.seq for f in bench.out.take_all()]  # type: ignore[union-attr]
        bench.session.refill()
    assert seqs == [1, 2, 3, 4, 5, 6]


def test_results_over_the_limit_are_refused_to_the_worker() -> None:
    bench = Bench(max_result_bytes=1000)
    bench.connect()
    bench.accept("a")
    request = bench.start()
    bench.session.result(request, b"x" * 800)
    with pytest.raises(ResultTooLarge):
        bench.session.result(request, b"x" * 800)


def test_a_long_stream_is_journaled_in_pieces(bench: Bench) -> None:
    bench.accept("a")
    request = bench.start()
    bench.session.result(request, b"1" * PIECE_BYTES)
    bench.session.result(request, b"2")
    bench.session.finish(request, "done")
    bench.journal.flush()
    assert bench.folded().snapshot() == bench.session.state.snapshot()
    assert [len(r) for r in bench.folded().live[1].results] == [PIECE_BYTES, 1]


def test_live_results_have_no_number_and_are_not_kept(bench: Bench) -> None:
    bench.accept("a")
    bench.out.take_all()
    request = bench.start()
    bench.session.live_result(request, b"1")
    bench.session.live_result(request, b"2")
    bench.session.finish(request, "done")
    bench.journal.flush()
    frames = bench.out.take_all()
    assert [f.seq for f in frames] == [0, 0, 1]  # type: ignore[union-attr]
    assert frames[-1].results == 2  # type: ignore[union-attr]
    assert bench.session.unacked_bytes == 0


def test_started_is_sent_to_who_asks_for_it() -> None:
    bench = Bench()
    bench.connect(started=True)
    bench.accept("a")
    bench.out.take_all()
    bench.start()
    assert only(bench) == wire.Started("a", 1)


def test_a_lost_connection_cancels_only_what_asked_for_it(bench: Bench) -> None:
    bench.send("a")
    bench.send("b", on_disconnect="cancel")
    bench.journal.flush()
    bench.session.detach(bench.out)
    bench.journal.flush()
    assert [r.outcome for r in bench.work.queue] == [None, "cancelled"]


def test_work_goes_on_without_a_connection(bench: Bench) -> None:
    bench.accept("a")
    bench.session.detach(bench.out)
    bench.run(b"1")
    bench.resume("e1", 0)
    assert [type(f).__name__ for f in bench.out.take_all()] == ["Result", "Done"]


def test_a_detached_older_connection_does_not_disturb_the_newer(bench: Bench) -> None:
    older = bench.out
    bench.resume("e1", 0)
    bench.session.detach(older)
    bench.accept("a")
    assert only(bench) == wire.Accepted("a", 1)


def test_a_session_that_ends_without_a_request_leaves_nothing_for_the_log(bench: Bench) -> None:
    bench.session.authorize("more")
    bench.session.close(cancel=False)
    assert not bench.journal.pending


def test_a_session_that_ends_without_a_request_ends_in_the_log_that_knows_it(bench: Bench) -> None:
    bench.journal.flush()
    bench.session.close(cancel=False)
    assert bench.journal.everything()[-1] == Closed("s")


def test_a_closed_session_runs_on_but_keeps_nothing(bench: Bench) -> None:
    bench.accept("a", "b")
    bench.run(b"1")
    bench.session.close(cancel=False)
    assert list(bench.session.state.live) == [2]
    bench.run(b"1")
    assert bench.session.state.is_over()


def test_closing_with_cancel_ends_what_waits(bench: Bench) -> None:
    bench.accept("a", "b")
    bench.session.close(cancel=True)
    bench.journal.flush()
    assert bench.session.state.is_over()


def test_results_nobody_fetched_expire(bench: Bench) -> None:
    bench.accept("a", "b")
    bench.run(b"1")
    bench.session.expire_results(before=bench.now + 1)
    assert list(bench.session.state.live) == [2]
    assert bench.session.unacked_bytes == 0
    bench.resume("e1", 0)
    assert not bench.out.frames


def test_an_expired_result_does_not_disturb_later_acks(bench: Bench) -> None:
    bench.accept("a")
    bench.run(b"1")
    bench.session.expire_results(before=bench.now + 1)
    bench.accept("b")
    bench.run(b"2")
    bench.say(wire.Ack(4))
    assert not bench.session.state.live


def test_at_the_bound_of_all_sessions_no_further_request_is_taken(bench: Bench) -> None:
    bench.accept("a")
    bench.run(b"1", b"2")
    bench.memory.limit = bench.memory.held_bytes
    bench.out.take_all()
    bench.send("b")
    frame = only(bench)
    assert isinstance(frame, wire.Error)
    assert (frame.code, frame.retryable) == ("overloaded", True)
    bench.say(wire.Ack(3))
    bench.accept("b")
    assert bench.work.queue[-1].id == "b"


def test_a_closed_session_holds_no_memory(bench: Bench) -> None:
    bench.accept("a")
    bench.run(b"1", b"2")
    assert bench.memory.held_bytes > 0
    bench.session.close(cancel=False)
    assert bench.memory.held_bytes == 0


# What gets into the log


def entries(bench: Bench, kind: type[Entry]) -> list[Any]:
    return [entry for entry in bench.journal.everything() if isinstance(entry, kind)]


REQUEST = '{"type":"request","id":"%s","method":"echo","params":{"text" : 1}}'


def say(bench: Bench, *lines: str) -> None:
    bench.hear("\n".join(lines))


def test_a_message_of_requests_and_acks_is_logged_as_it_came(bench: Bench) -> None:
    bench.accept("a")
    bench.run(b"1")
    lines = ['{"type":"ack","seq":2}', REQUEST % "b", REQUEST % "c"]
    say(bench, *lines)
    entry = entries(bench, Accepted)[-1]
    assert (entry.n, entry.frames) == (2, "\n".join(lines))


def test_of_other_messages_only_the_accepted_requests_are_logged(bench: Bench) -> None:
    """A token, or what was refused, has no business in the log."""
    bench.accept("known")
    say(
        bench,
        REQUEST % "a",
        "nonsense",
        REQUEST % "known",
        REQUEST % "b",
        '{"type":"cancel","id":"a"}',
        REQUEST % "c",
    )
    logged = [(e.n, decode_client_message(e.frames)) for e in entries(bench, Accepted)[1:]]
    assert [(n, [f.id for f in frames]) for n, frames in logged] == [  # type: ignore[union-attr]
        (2, ["a"]),
        (3, ["b"]),
        (4, ["c"]),
    ]
    assert bench.folded().snapshot() == bench.session.state.snapshot()


def test_a_request_that_was_logged_anew_keeps_its_params_as_they_came(bench: Bench) -> None:
    request = '{"type":"request","id":"a","method":"m","params":{"text" : 1},"timeout":2.5}'
    say(bench, "nonsense", request)
    assert bench.folded().snapshot() == bench.session.state.snapshot()
    assert bytes(bench.folded().live[1].params) == b'{"text" : 1}'


def test_a_refresh_interrupts_the_message_and_is_not_logged(bench: Bench) -> None:
    message = "\n".join([REQUEST % "a", '{"type":"refresh","token":"secret"}', REQUEST % "b"])
    rest = bench.session.receive(decode_client_message(message), message)
    assert rest is not None
    refresh, frames = rest
    assert refresh == wire.Refresh("secret")
    assert bench.session.receive(frames, None) is None
    assert "secret" not in repr(bench.journal.everything())
    bench.journal.flush()
    assert [r.id for r in bench.work.queue] == ["a", "b"]


def test_what_follows_bye_in_a_message_is_not_taken(bench: Bench) -> None:
    bench.say(wire.Bye(), wire.Request("a", "echo"))
    assert bench.session.state.last_n == 0


def test_a_cancel_may_follow_its_request_in_one_message(bench: Bench) -> None:
    bench.say(wire.Request("a", "echo"), wire.Cancel("a"))
    assert bench.folded().snapshot() == bench.session.state.snapshot()
    bench.journal.flush()
    frames = bench.out.take_all()
    assert [type(frame).__name__ for frame in frames] == ["Accepted", "Error"]


def test_a_start_is_logged_by_itself_only_while_the_request_runs(bench: Bench) -> None:
    bench.accept("a", "b")
    bench.run()
    bench.start()
    bench.journal.flush()
    assert [(e.n, e.attempt, e.time) for e in entries(bench, Started)] == [(2, 1, 1000.0)]
    [end] = entries(bench, Finished)[0].ends
    assert end.started == 1000.0


def test_requests_that_ended_since_the_last_commit_are_one_entry(bench: Bench) -> None:
    bench.accept("a", "b", "c")
    for _ in range(3):
        bench.run(b"1", durable=False)
    assert [[end.n for end in entry.ends] for entry in entries(bench, Finished)] == [[1, 2, 3]]


def taken(bench: Bench) -> list[RequestState]:
    """Take everything out of the worker's queue."""
    requests = list(bench.work.queue)
    bench.work.queue.clear()
    return requests


def test_answers_are_a_result_each_and_then_the_ends(bench: Bench) -> None:
    bench.accept("a", "b")
    bench.out.take_all()
    first, second = taken(bench)
    bench.session.answer([(first, b"7"), (second, b"8")])
    assert bench.out.take_all() == [
        wire.Result("a", 1, 0, Raw(b"7"), seq=1),
        wire.Result("b", 1, 0, Raw(b"8"), seq=2),
    ]
    bench.journal.flush()
    assert bench.out.take_all() == [wire.Done("a", 3, 1, 1), wire.Done("b", 4, 1, 1)]
    assert bench.session.unacked_bytes == 2 * (1 + EVENT_BYTES)
    assert bench.folded().snapshot() == bench.session.state.snapshot()


def test_an_answer_over_the_limit_ends_its_request_with_an_error() -> None:
    bench = Bench(max_result_bytes=1000)
    bench.connect()
    bench.accept("a", "b", "c")
    bench.out.take_all()
    a, b, c = taken(bench)
    bench.session.answer([(a, b"1" * 500), (b, b"2" * 500), (c, b"3")])
    bench.journal.flush()
    results = [f.id for f in bench.out.take_all() if isinstance(f, wire.Result)]
    assert results == ["a", "c"]
    assert [r.outcome for r in (a, b, c)] == ["done", "result_too_large", "done"]
    assert bench.folded().snapshot() == bench.session.state.snapshot()


def test_answers_that_find_no_room_wait_with_the_other_events(bench: Bench) -> None:
    bench.accept("a", "b")
    first, second = taken(bench)
    bench.resume("e1", 0, room=1)
    bench.session.answer([(first, b"1")])
    bench.session.answer([(second, b"2")])
    bench.journal.flush()
    seqs: list[int | None] = []
    while bench.out.frames:
        seqs += [f.seq for f in bench.out.take_all()]  # type: ignore[union-attr]
        bench.session.refill()
    assert seqs == [1, 2, 3, 4]


def test_answers_in_a_closed_session_are_not_kept(bench: Bench) -> None:
    bench.accept("a")
    [request] = taken(bench)
    bench.session.close(cancel=False)
    bench.session.answer([(request, b"1")])
    assert bench.session.state.is_over()
    assert bench.memory.held_bytes == 0
    state = State()
    fold(state, bench.journal.everything())
    assert not state.sessions


def test_an_answer_is_told_as_started_to_who_asked_for_it() -> None:
    bench = Bench()
    bench.connect(started=True)
    bench.accept("a")
    bench.out.take_all()
    bench.session.answer([(taken(bench)[0], b"1")])
    assert [type(frame).__name__ for frame in bench.out.take_all()] == ["Started", "Result"]


def test_a_checkpoint_says_what_the_entries_before_it_said(bench: Bench) -> None:
    bench.accept("a", "b")
    bench.run(b"1", durable=False)
    request = bench.start()
    bench.session.result(request, b"1" * PIECE_BYTES)
    bench.session.checkpoint()
    bench.session.finish(request, "done")
    snapshots = entries(bench, Snapshot)
    assert len(snapshots) == 1
    log = bench.journal.everything()
    tail = State()
    fold(tail, log[log.index(snapshots[0]) :])
    assert tail.sessions["s"].snapshot() == bench.session.state.snapshot()
    assert bench.folded().snapshot() == bench.session.state.snapshot()


def test_unended_is_what_is_durably_accepted_and_not_durably_ended(bench: Bench) -> None:
    """The request log says of these that they wait or run."""
    session = bench.session

    def unended() -> list[str]:
        return [request.id for request in session.unended()]

    bench.send("a")
    assert unended() == []
    bench.journal.flush()
    assert unended() == ["a"]
    bench.run(b"1", durable=False)
    assert unended() == ["a"]
    bench.journal.flush()
    assert unended() == []


def test_an_error_counts_for_the_details_in_it(bench: Bench) -> None:
    outbox = Outbox(1_000_000, lambda: None)
    bench.session.attach(outbox, wire.Hello(), 2000.0, None)
    bench.accept("a")
    outbox.take()
    error = b'{"code":"broke","message":"m","retryable":false,"details":"%s"}' % (b"x" * 5000)
    bench.session.finish(bench.start(), "broke", error)
    bench.journal.flush()
    assert outbox.size >= len(error)


def test_scopes_that_change_while_nothing_is_committed_leave_one_entry(bench: Bench) -> None:
    for number in range(10):
        bench.session.authorize(f"scope-{number}")
    bench.journal.cut()
    changes = [e for e in bench.journal.in_flight if isinstance(e, Authorized)]
    assert changes == [Authorized("s", "scope-9")]


def test_results_acknowledged_one_by_one_leave_one_entry(bench: Bench) -> None:
    bench.accept("a")
    request = bench.start()
    for seq in range(1, 11):
        bench.session.result(request, b"1")
        bench.say(wire.Ack(seq))
    bench.journal.cut()
    assert bench.journal.in_flight == [Started("s", 1, 1, 1000.0), Acked("s", [], 1, 10)]


def test_an_acknowledgement_of_what_has_just_started_is_logged_behind_its_start(
    bench: Bench,
) -> None:
    bench.accept("a", "b")
    bench.run()
    bench.session.result(bench.start(), b"1")
    bench.say(wire.Ack(1), wire.Ack(2))
    assert bench.folded().snapshot() == bench.session.state.snapshot()
