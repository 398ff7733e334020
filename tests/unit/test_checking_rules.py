"""scripts/checking: for each rule a history that breaks it, and the same one kept true."""

from collections.abc import Callable

import pytest

from scripts.checking.checker import check
from scripts.checking.rules import RULES
from tests.histories import POOL_PID, Client, Story

Tell = Callable[[Story, bool], None]
CASES: list[tuple[str, Tell]] = []


def breaks(rule: str) -> Callable[[Tell], Tell]:
    """A story that breaks `rule` when its second argument says so, and no rule otherwise."""

    def add(tell: Tell) -> Tell:
        CASES.append((rule, tell))
        return tell

    return add


# Accepted is durable


@breaks("G1a")
def an_accepted_request_is_not_in_the_journal(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x", "y")
    a.accept("x", "y")
    story.crash(
        **(
            {"session_a": {"last_n": 1, "closed": False, "live": [[1, "x", 0, None]]}}
            if bad
            else {}
        )
    )


@breaks("G1a")
def the_session_of_an_accepted_request_is_not_in_the_journal(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    story.crash(**({"session_a": None} if bad else {}))


@breaks("G1a")
def a_request_is_gone_that_was_not_acknowledged(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.run("x")
    a.end("x")
    if not bad:
        a.ack()
    story.crash(session_a={"last_n": 1, "closed": False, "live": []})


@breaks("G1a")
def a_request_is_gone_before_its_client_knew_of_it(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.take("x")
    live = [] if bad else [a.calls["x"].row]
    story.crash(session_a={"last_n": 1, "closed": False, "live": live})


@breaks("G1a")
def the_journal_ends_before_what_was_acknowledged(story: Story, bad: bool) -> None:
    a = story.client()
    a.whole("x")
    a.whole("y")
    story.crash(session_a={"last_n": 1 if bad else 2, "closed": False, "live": []})


@breaks("G3a")
def a_request_has_another_id_in_the_journal(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x", "y")
    a.accept("x")
    row = [1, "y" if bad else "x", 0, None]
    story.crash(session_a={"last_n": 1, "closed": False, "live": [row]})


@breaks("G1b")
def a_handler_started_what_the_journal_does_not_know(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.take("x")
    a.begin("x")
    story.crash(**({"session_a": None} if bad else {}))


@breaks("G1b")
def a_handler_started_what_is_behind_the_end_of_the_journal(story: Story, bad: bool) -> None:
    a = story.client()
    a.whole("x")
    a.ask("y")
    a.take("y")
    a.begin("y")
    less = {"session_a": {"last_n": 1, "closed": False, "live": []}}
    story.crash(**(less if bad else {}))


@breaks("G1c")
def an_accepted_request_is_over_and_never_ran(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.send({"type": "bye"})
    a.disconnect(1000)
    if not bad:
        a.run("x")
    story.crash(code=0, session_a=None)


@breaks("G1c")
def an_accepted_request_is_gone_and_never_ran(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x", "y")
    a.accept("x", "y")
    a.run("x")
    a.send({"type": "bye"})
    a.disconnect(1000)
    live = [] if bad else [a.calls["y"].row]
    story.crash(code=0, session_a={"last_n": 2, "closed": True, "live": live})


@breaks("G1d")
def welcome_does_not_list_an_accepted_request(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x", "y")
    a.accept("x", "y")
    a.disconnect()
    a.connect(welcome={"requests": [a.status("x")]} if bad else None)


@breaks("G1d")
def welcome_does_not_list_what_is_in_the_journal(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.take("x")
    story.crash()
    a.connect(welcome={"requests": []} if bad else None)


@breaks("G1e")
def a_session_with_an_accepted_request_is_unknown(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    story.crash()
    lost = {"resumed": False, "session": "other", "requests": []}
    a.connect(welcome=lost if bad else None)


@breaks("G1e")
def a_session_is_unknown_to_its_own_process(story: Story, bad: bool) -> None:
    a = story.client()
    a.disconnect()
    if not bad:
        story.crash()
    a.connect(welcome={"resumed": False, "session": "other"})


@breaks("G1f")
def at_rest_a_request_has_not_ended(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.run("x")
    if not bad:
        a.end("x")
        a.ack()
    story.say("quiet")


@breaks("G1f")
def at_rest_a_request_was_not_answered(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    if not bad:
        a.refuse("window_exceeded", id="x")
    story.say("quiet")


@breaks("G1g")
def a_request_is_cancelled_that_nobody_cancelled(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    if not bad:
        a.send({"type": "cancel", "id": "x"})
    a.fail("x", "cancelled")


@breaks("G1g")
def a_request_is_cancelled_with_a_connection_that_was_not_lost(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x", on_disconnect="cancel")
    a.accept("x")
    if not bad:
        a.disconnect()
        a.connect()
    a.fail("x", "cancelled")


@breaks("G1g")
def a_request_is_interrupted_without_a_crash(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    if not bad:
        story.crash()
        a.connect()
    a.fail("x", "interrupted")


@breaks("G1h")
def a_sealed_server_accepts(story: Story, bad: bool) -> None:
    a = story.client()
    story.say("pause", server="s1")
    story.up()
    story.client("b")
    story.say("continue", server="s1")
    a.ask("x")
    if bad:
        a.accept("x")


@breaks("G1i")
def a_result_of_what_is_not_accepted(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.take("x")
    a.run("x", "item")
    if not bad:
        a.accept("x")
    a.result("x", 0)


@breaks("G1i")
def an_event_of_what_was_never_sent(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.run("x")
    a.end("x", id="other" if bad else "x")


@breaks("G1j")
def a_second_attempt_is_not_in_the_journal(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.begin("x")
    story.crash()
    a.begin("x")
    row = [1, "x", 1 if bad else 2, None]
    story.crash(session_a={"last_n": 1, "closed": False, "live": [row]})


@breaks("G1k")
def a_session_is_closed_without_a_bye(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    if not bad:
        a.send({"type": "bye"})
    story.crash(session_a={"last_n": 1, "closed": True, "live": [[1, "x", 0, None]]})


# What an operator may do


@breaks("G1g")
def an_operator_cancelled_another_request(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x", "y")
    a.accept("x", "y")
    story.say("operator_cancel", session="session_a", n=1 if bad else 2)
    a.fail("y", "cancelled")
    a.run("x")
    a.end("x")


@breaks("G1c")
def what_an_operator_left_alone_is_gone_with_its_session(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x", "y")
    a.accept("x", "y")
    a.run("x")
    story.say("operator_cancel", session="session_a", n=1 if bad else 2)
    story.say("operator_close", session="session_a")
    a.disconnect(1000)
    story.crash(code=0, session_a=None)


@breaks("G1k")
def a_session_is_closed_that_an_operator_left_alone(story: Story, bad: bool) -> None:
    a = story.client("a")
    a.ask("x")
    a.accept("x")
    story.say("operator_close", session="session_b" if bad else "session_a")
    a.disconnect(1000)
    story.crash(session_a={"last_n": 1, "closed": True, "live": [[1, "x", 0, None]]})


@breaks("G1g")
def an_operator_closed_a_session_and_cancelled_nothing(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    story.say("operator_close", session="session_a", cancel=not bad)
    a.fail("x", "cancelled")
    a.disconnect(1000)


@breaks("G1e")
def a_session_that_an_operator_left_alone_is_unknown(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    story.say("operator_close", session="session_b" if bad else "session_a")
    a.disconnect(1000)
    a.connect(welcome={"resumed": False, "session": "other", "requests": [], "seq": 0})


@breaks("G1k")
def what_an_operator_ran_again_is_in_a_session_of_its_own(story: Story, bad: bool) -> None:
    run = {"server": "s1", "pid": 100, "session": "retry", "n": 1, "attempt": 1}
    if not bad:
        story.say("operator_retry", session="retry")
    story.say("start", **run, id="retry of session_a:1", method="m")
    said = {"last_n": 1, "closed": True, "live": [[1, "retry of session_a:1", 1, None]]}
    story.crash(retry=said)


# Done is durable


@breaks("G2a")
def an_end_is_not_in_the_journal(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.run("x")
    a.end("x")
    row = [1, "x", 1, None if bad else "done"]
    story.crash(session_a={"last_n": 1, "closed": False, "live": [row]})


@breaks("G2a")
def an_end_is_another_one_in_the_journal(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.run("x")
    a.end("x")
    row = [1, "x", 1, "timeout" if bad else "done"]
    story.crash(session_a={"last_n": 1, "closed": False, "live": [row]})


@breaks("G2b")
def what_has_ended_runs_again(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x", "y")
    a.accept("x", "y")
    a.run("x")
    a.end("x")
    story.crash()
    a.begin("x" if bad else "y")


@breaks("G2b")
def what_ended_in_the_journal_runs_again(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.run("x")
    story.crash()
    if bad:
        a.begin("x")


@breaks("G2b")
def what_was_acknowledged_runs_again(story: Story, bad: bool) -> None:
    a = story.client()
    a.whole("x")
    story.crash()
    if bad:
        a.begin("x")


@breaks("G2b")
def an_attempt_ends_after_the_next_began(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.begin("x", pid=POOL_PID)
    a.begin("x", pid=POOL_PID)
    a.fail("x", "handler_error", attempt=1 if bad else 2)


@breaks("G2b")
def a_request_of_a_session_that_is_over_runs(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.run("x")
    a.send({"type": "bye"})
    story.crash(session_a=None)
    if bad:
        a.begin("x")


@breaks("G2c")
def an_end_comes_again_as_another_one(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.begin("x")
    a.finish("x", "raised")
    a.fail("x", "sold_out")
    story.crash()
    a.dial()
    a.welcome()
    a.end("x", code="other" if bad else "sold_out")


@breaks("G2d")
def done_counts_other_results_than_there_were(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.run("x", "item")
    a.results("x")
    a.end("x", results=2 if bad else 1)


@breaks("G2d")
def done_comes_while_the_handler_runs(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.begin("x")
    if not bad:
        a.finish("x")
    a.calls["x"].outcome = "done"
    a.end("x")


@breaks("G2d")
def done_comes_though_nothing_ran(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    if not bad:
        a.run("x")
    a.calls["x"].outcome = "done"
    a.end("x")


@breaks("G2d")
def the_journal_says_done_of_what_did_not_run(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    if not bad:
        a.run("x")
    row = [1, "x", 1, "done"]
    story.crash(session_a={"last_n": 1, "closed": False, "live": [row]})


@breaks("G2e")
def a_result_of_an_attempt_that_did_not_start(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.run("x", "item")
    a.result("x", 0, attempt=2 if bad else 1)


@breaks("G2e")
def a_result_is_not_what_the_handler_gave(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.run("x", "item")
    a.result("x", 0, data="other" if bad else "item")


@breaks("G2e")
def a_result_comes_that_no_handler_gave(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.begin("x")
    a.emit("x", "item")
    a.result("x", 0)
    if bad:
        a.calls["x"].items.append("item")
        a.result("x", 1)


@breaks("G2f")
def what_has_ended_is_listed_as_waiting(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.run("x")
    a.end("x")
    a.disconnect()
    a.connect(welcome={"requests": [a.status("x", state="waiting")]} if bad else None)


@breaks("G2f")
def an_older_attempt_is_listed(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.begin("x")
    a.emit("x", "item")
    a.result("x", 0)
    a.disconnect()
    a.connect(welcome={"requests": [a.status("x", attempt=0 if bad else 1)]})


@breaks("G2f")
def another_attempt_is_listed_as_ended(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.run("x")
    a.end("x")
    a.disconnect()
    a.connect(welcome={"requests": [a.status("x", attempt=2 if bad else 1)]})


@breaks("G2f")
def other_results_are_listed(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.run("x", "item")
    a.results("x")
    a.end("x")
    a.disconnect()
    a.connect(welcome={"requests": [a.status("x", results=2 if bad else 1)]})


@breaks("G2g")
def an_end_comes_again_that_the_journal_has_forgotten(story: Story, bad: bool) -> None:
    a = story.client()
    a.whole("x")
    story.crash()
    a.connect()
    if bad:
        a.end("x")


@breaks("G2g")
def what_the_journal_has_forgotten_is_listed(story: Story, bad: bool) -> None:
    a = story.client()
    a.whole("x")
    story.crash()
    a.calls["x"].acked = not bad
    a.connect(welcome={"seq": 1} if bad else None)


# Order


@breaks("G3a")
def a_number_is_left_out(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x", "y")
    a.accept("x")
    a.accept("y", n=3 if bad else 2)


@breaks("G3a")
def a_number_is_given_twice(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x", "y")
    a.take("x", "y")
    a.begin("y" if bad else "x", n=1)
    a.accept("x")


@breaks("G3a")
def a_number_is_far_ahead(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.take("x")
    a.begin("x", n=10**6 if bad else 1)


@breaks("G3a")
def a_number_in_the_journal_is_behind_its_end(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x", "y")
    a.accept("x")
    a.take("y")
    live = [a.calls["x"].row, a.calls["y"].row]
    story.crash(session_a={"last_n": 1 if bad else 2, "closed": False, "live": live})


@breaks("G3b")
def numbers_are_not_in_the_order_of_sending(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x", "y")
    a.accept(*("yx" if bad else "xy"))


@breaks("G3c")
def two_handlers_of_a_session_run_at_a_time(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x", "y")
    a.accept("x", "y")
    a.begin("x")
    if not bad:
        a.finish("x")
    a.begin("y")


@breaks("G3c")
def a_handler_in_a_process_goes_on_beside_the_next(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x", "y")
    a.accept("x", "y")
    a.begin("x", pid=POOL_PID)
    a.begin("y")
    if bad:
        a.emit("x", "item")


@breaks("G3d")
def requests_run_out_of_order(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x", "y")
    a.accept("x", "y")
    for call_id in "yx" if bad else "xy":
        a.run(call_id)


@breaks("G3d")
def a_request_runs_after_a_later_one_has_ended_in_the_journal(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x", "y")
    a.accept("x", "y")
    if not bad:
        a.run("x")
    a.run("y")
    a.calls["x"].outcome = None if bad else "done"
    story.crash()


@breaks("G3e")
def a_request_ends_before_an_earlier_one(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x", "y")
    a.accept("x", "y")
    a.run("x")
    a.run("y")
    for call_id in "yx" if bad else "xy":
        a.end(call_id)


@breaks("G3e")
def a_request_ends_and_an_earlier_one_has_not(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x", "y")
    a.accept("x", "y")
    a.run("x")
    a.run("y")
    if not bad:
        a.end("x")
    a.end("y")


@breaks("G3e")
def ends_come_again_in_another_order(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x", "y")
    a.accept("x", "y")
    for call_id in "xy":
        a.run(call_id)
        a.end(call_id)
    story.crash()
    a.dial()
    a.welcome()
    for call_id in "yx" if bad else "xy":
        a.end(call_id)


@breaks("G3f")
def a_result_comes_after_one_of_a_later_request(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x", "y")
    a.accept("x", "y")
    a.run("x", "item of x")
    a.run("y", "item of y")
    for call_id in "yx" if bad else "xy":
        a.result(call_id, 0)


@breaks("G3g")
def a_first_attempt_is_called_the_second(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.begin("x", attempt=2 if bad else 1)


@breaks("G3g")
def attempts_do_not_count_what_was_orderly(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    story.crash(code=0 if bad else -9)
    a.begin("x", attempt=2)


@breaks("G3g")
def an_attempt_is_not_counted(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.begin("x")
    story.crash()
    a.begin("x", attempt=1 if bad else 2)


@breaks("G3g")
def an_attempt_that_the_journal_knows_is_not_counted(story: Story, bad: bool) -> None:
    """Its start was committed, and the crash came before its handler said so."""
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.begin("x")
    story.crash()
    story.crash(session_a={"last_n": 1, "closed": False, "live": [[1, "x", 2, None]]})
    a.begin("x", attempt=2 if bad else 3)


@breaks("G3g")
def a_zombie_runs_an_attempt_of_its_successor(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    story.say("pause", server="s1")
    story.up()
    a.begin("x", attempt=2)
    story.say("continue", server="s1")
    a.begin("x", server="s1", attempt=2 if bad else 1)


@breaks("G3h")
def welcome_is_not_in_order(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x", "y")
    a.accept("x", "y")
    a.disconnect()
    a.connect(welcome={"requests": [a.status(i) for i in ("yx" if bad else "xy")]})


@breaks("G3i")
def a_handler_outlives_its_server(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.begin("x", pid=POOL_PID)
    if bad:
        story.down()
    a.emit("x", "item")


# One id, one execution


@breaks("G4a")
def an_id_is_accepted_twice(story: Story, bad: bool) -> None:
    a = story.client()
    a.whole("x")
    a.ask("x")
    if bad:
        a.accept("x", n=2)
    else:
        a.accept("x", duplicate=True, state="acknowledged")


@breaks("G4a")
def a_duplicate_has_another_number(story: Story, bad: bool) -> None:
    a = story.client()
    a.whole("x")
    a.whole("y")
    a.ask("y")
    a.accept("y", n=1 if bad else 2, duplicate=True, state="acknowledged")


@breaks("G4b")
def a_duplicate_of_what_was_not_accepted(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x", "x")
    a.take("x")
    a.begin("x")
    if not bad:
        a.accept("x")
    a.accept("x", duplicate=True, state="running")


@breaks("G4b")
def a_new_request_is_called_a_duplicate(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x", **({"duplicate": True, "state": "waiting"} if bad else {}))


@breaks("G4b")
def a_duplicate_runs_though_it_has_ended(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.run("x")
    a.end("x")
    a.ask("x")
    a.accept("x", duplicate=True, state="running" if bad else "ended")


@breaks("G4c")
def a_request_starts_twice_in_a_process(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    pid = 100 if bad else POOL_PID
    a.begin("x", pid=pid)
    a.finish("x", "raised")
    a.begin("x", pid=pid)


@breaks("G4d")
def a_request_runs_with_other_params(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x", params={"k": [1, "b"]})
    a.accept("x")
    a.begin("x", params={"k": [1.0, "c" if bad else "b"]})


@breaks("G4d")
def a_request_runs_another_method(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.begin("x", method="other" if bad else "m")


@breaks("G4e")
def other_params_are_taken_for_a_duplicate(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.ask("x", params={"k": 2})
    if bad:
        a.accept("x", duplicate=True, state="waiting")
    else:
        a.refuse("id_conflict", id="x")


@breaks("G4e")
def the_same_request_is_taken_for_a_conflict(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.ask("x")
    if bad:
        a.refuse("id_conflict", id="x")
    else:
        a.accept("x", duplicate=True, state="waiting")


@breaks("G4f")
def what_must_not_run_twice_does(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.begin("x", replay="never")
    story.crash()
    if bad:
        a.begin("x", replay="never")


@breaks("G4g")
def a_refused_request_is_accepted(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.refuse("window_exceeded", id="x")
    if not bad:
        a.ask("x")
    a.accept("x")


@breaks("G4g")
def a_handler_runs_what_nobody_sent(story: Story, bad: bool) -> None:
    a = story.client()
    if not bad:
        a.ask("x")
    a.take("x")
    a.begin("x")


# Resume


@breaks("G5a")
def an_event_is_missing(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.run("x", "item")
    if not bad:
        a.result("x", 0)
    a.result("x", 0, seq=2) if bad else a.end("x")


@breaks("G5a")
def an_event_comes_again_after_a_resume(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.run("x", "item")
    a.result("x", 0)
    a.disconnect()
    a.connect()
    if bad:
        a.result("x", 0, seq=1)
    else:
        a.end("x")


@breaks("G5a")
def a_new_epoch_goes_on_counting(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.run("x")
    a.end("x")
    story.crash()
    a.dial()
    a.welcome()
    a.end("x", seq=2 if bad else 1)


@breaks("G5a")
def events_are_missing_for_a_client_that_forgot_the_epoch(story: Story, bad: bool) -> None:
    a = story.client()
    a.whole("x")
    a.ask("y")
    a.accept("y")
    a.run("y", "item")
    a.connect(epoch="forgotten")
    a.result("y", 0, seq=3 if bad else 2)


@breaks("G5a")
def at_rest_an_event_did_not_come(story: Story, bad: bool) -> None:
    a = story.client()
    a.whole("x")
    a.calls["x"].acked = False
    story.crash()
    a.dial()
    a.welcome()
    if not bad:
        a.end("x")
    story.say("quiet")


@breaks("G5b")
def welcome_knows_less_than_the_client(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.run("x")
    a.end("x")
    a.disconnect()
    a.connect(welcome={"seq": 0 if bad else 1})


@breaks("G5b")
def a_new_session_has_events(story: Story, bad: bool) -> None:
    story.client(welcome={"seq": 1 if bad else 0})


@breaks("G5c")
def an_index_is_left_out(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.run("x", "item", "item", "item")
    a.result("x", 0)
    a.result("x", 2 if bad else 1)


@breaks("G5c")
def an_index_is_repeated(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.run("x", "item", "item")
    a.result("x", 0)
    a.result("x", 0 if bad else 1)


@breaks("G5c")
def a_result_that_was_not_acknowledged_does_not_come_again(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.run("x", "item", "item")
    a.results("x")
    if not bad:
        a.ack(seq=1)
    story.crash()
    a.dial()
    a.welcome(seq=2)
    a.result("x", 1)


@breaks("G5c")
def a_live_result_comes_twice(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.begin("x", live=True)
    a.emit("x", "item", "item")
    for index in (1, 1) if bad else (0, 1):
        a.recv({"type": "result", "id": "x", "attempt": 1, "index": index, "data": "item"})


@breaks("G5d")
def done_comes_before_all_results(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.run("x", "item", "item")
    a.result("x", 0)
    if not bad:
        a.result("x", 1)
    a.end("x")


@breaks("G5d")
def a_result_is_lost_in_a_new_epoch(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.run("x", "item", "item")
    a.results("x")
    story.crash()
    a.dial()
    a.welcome()
    a.result("x", 0)
    if not bad:
        a.result("x", 1)
    a.end("x")


@breaks("G5d")
def an_error_comes_before_all_results(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.begin("x")
    a.emit("x", "item")
    a.finish("x", "raised")
    if not bad:
        a.result("x", 0)
    a.fail("x", "sold_out")


@breaks("G5e")
def an_older_attempt_gives_a_result(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.begin("x", pid=POOL_PID)
    a.emit("x", "item", pid=POOL_PID)
    a.begin("x", pid=POOL_PID)
    a.emit("x", "item", "item", pid=POOL_PID)
    a.result("x", 0)
    a.result("x", 0 if bad else 1, attempt=1 if bad else 2)


@breaks("G5f")
def a_request_ends_twice(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.run("x")
    a.end("x")
    if bad:
        a.end("x")


@breaks("G5f")
def a_result_comes_after_the_end(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.run("x", "item")
    a.result("x", 0)
    a.end("x")
    if bad:
        a.result("x", 0)


@breaks("G5g")
def two_processes_have_one_epoch(story: Story, bad: bool) -> None:
    a = story.client()
    story.crash()
    a.connect(welcome={"epoch": "epoch_s1" if bad else "epoch_s2"})


@breaks("G5g")
def a_process_has_two_epochs(story: Story, bad: bool) -> None:
    a = story.client()
    a.disconnect()
    a.connect(welcome={"epoch": "other" if bad else "epoch_s1"})


@breaks("G5g")
def a_frame_comes_before_welcome(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    if bad:
        a.dial()
    a.accept("x")


@breaks("G5g")
def a_connection_is_welcomed_without_a_hello(story: Story, bad: bool) -> None:
    a = Client(story, "a")
    a.server = story.server
    a.conn = story.conn()
    story.say("connect", client="a", conn=a.conn, server=a.server)
    if not bad:
        a.send({"type": "hello"})
    a.welcome()


@breaks("G5g")
def a_session_that_is_over_is_resumed(story: Story, bad: bool) -> None:
    a = story.client()
    a.whole("x")
    a.send({"type": "bye"})
    story.crash(session_a=None)
    lost = {"resumed": False, "session": "other"}
    a.connect(welcome=None if bad else lost)


@breaks("G5g")
def another_session_is_resumed(story: Story, bad: bool) -> None:
    a = story.client()
    story.client("b")
    a.disconnect()
    a.connect(welcome={"session": "session_b"} if bad else None)


@breaks("G5g")
def a_new_session_is_an_old_one(story: Story, bad: bool) -> None:
    story.client()
    b = story.client("b")
    c = story.client("c") if not bad else b
    c.epoch = None
    if bad:
        c.connect(welcome={"session": "session_a"})


@breaks("G5h")
def a_number_stands_for_another_event(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.run("x", "item", "item")
    a.results("x")
    a.connect(seq=1)
    a.result("x", 1 if not bad else 0, seq=2)


# The wire


@breaks("W1")
def a_request_is_refused_with_a_code_of_an_end(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.refuse("timeout" if bad else "overloaded", id="x")


@breaks("W1")
def what_was_not_sent_is_refused(story: Story, bad: bool) -> None:
    a = story.client()
    a.ask("x")
    a.refuse("overloaded", id="y" if bad else "x")


@breaks("W2")
def a_connection_ends_with_an_internal_error(story: Story, bad: bool) -> None:
    story.client().disconnect(1011 if bad else 1012)


@breaks("W2")
def a_connection_ends_with_a_protocol_error(story: Story, bad: bool) -> None:
    a = story.client()
    a.dial()
    if not bad:
        a.send("nonsense")
    a.disconnect(4500)


@breaks("W3")
def a_good_frame_is_called_bad(story: Story, bad: bool) -> None:
    a = story.client()
    a.send("nonsense" if not bad else {"type": "refresh"})
    a.refuse("bad_frame")


@breaks("W4")
def a_frame_lacks_a_field(story: Story, bad: bool) -> None:
    a = story.client()
    a.recv({"type": "goaway", "reason": "restart"} | ({} if bad else {"reconnect_after": 1}))


@breaks("W4")
def the_end_of_a_request_has_no_attempt(story: Story, bad: bool) -> None:
    a = story.client()
    frame = {"type": "error", "code": "overloaded", "message": "", "retryable": True}
    a.recv(frame | ({"seq": 1} if bad else {}))


def test_every_rule_has_a_history_that_breaks_it() -> None:
    assert {rule for rule, _ in CASES} == set(RULES)


@pytest.mark.parametrize(
    ("rule", "tell"), [pytest.param(r, t, id=f"{r}-{t.__name__}") for r, t in CASES]
)
def test_the_rule_is_broken(rule: str, tell: Tell) -> None:
    story = Story()
    tell(story, True)
    violation = check(story.events)
    assert violation is not None
    assert violation.rule == rule, violation


@pytest.mark.parametrize("tell", [pytest.param(t, id=t.__name__) for _, t in CASES])
def test_the_same_history_kept_true_breaks_no_rule(tell: Tell) -> None:
    story = Story()
    tell(story, False)
    assert check(story.events) is None
