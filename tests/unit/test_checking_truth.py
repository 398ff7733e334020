"""scripts/checking: what a server may do, however unusual, breaks no rule."""

from collections.abc import Callable

import pytest

from scripts.checking.checker import Checker, check
from scripts.checking.history import HistoryError
from scripts.checking.state import ACKNOWLEDGED_MAX, DATA_MAX
from tests.histories import POOL_PID, Client, Story

STORIES: list[Callable[[Story], None]] = []


def allowed(tell: Callable[[Story], None]) -> Callable[[Story], None]:
    STORIES.append(tell)
    return tell


@allowed
def a_request_from_beginning_to_end(story: Story) -> None:
    a = story.client()
    a.whole("x", "one", "two")
    a.whole("y")
    story.say("quiet")


@allowed
def a_session_that_an_operator_closed_while_its_client_was_away(story: Story) -> None:
    """Its client says what it has seen of the old one, and gets a new one in the same epoch."""
    a = story.client()
    a.whole("x", "one")
    a.disconnect()
    story.say("operator_close", session="session_a")
    a.connect(welcome={"resumed": False, "session": "other", "requests": [], "seq": 0})


@allowed
def a_crash_before_the_commit(story: Story) -> None:
    """The id is not in the manifest: it is sent again, and gets the same n as another could."""
    a = story.client()
    a.whole("w")
    a.ask("x", "y")
    story.crash()
    a.connect()
    a.ask("y", "x")
    a.accept("y", "x")


@allowed
def a_commit_that_lands_after_its_server_is_gone(story: Story) -> None:
    """A database outlives the server, and is slow: the session is there later, with its bye."""
    a = story.client()
    a.ask("x")
    story.say("send", client="a", conn=a.conn, frame={"type": "bye"})
    a.take("x")
    story.crash(session_a=None)
    story.crash(session_a=a.said() | {"closed": True})
    a.run("x", "item")


@allowed
def a_crash_after_the_commit_and_before_accepted(story: Story) -> None:
    a = story.client()
    a.ask("x")
    a.take("x")
    story.crash()
    a.connect()
    a.run("x", "item")
    a.results("x")
    a.end("x")
    a.ack("x")
    story.say("quiet")


@allowed
def a_crash_while_it_runs(story: Story) -> None:
    """Results come again from index 0, with a higher attempt."""
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.begin("x")
    a.emit("x", "one", "two")
    a.results("x")
    a.ack()
    story.crash()
    a.connect()
    a.run("x", "one", "two", "three")
    a.results("x")
    a.end("x")
    a.ack("x")
    story.say("quiet")


@allowed
def a_crash_after_the_commit_of_the_end(story: Story) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.run("x", "one", "two")
    a.result("x", 0)
    story.crash()
    a.connect()
    a.ack("x")
    story.say("quiet")


@allowed
def a_crash_between_the_end_of_the_handler_and_its_commit(story: Story) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.run("x", "one")
    a.results("x")
    a.calls["x"].outcome = None
    story.crash()
    a.connect()
    a.run("x", "other")
    a.results("x")
    a.end("x")


@allowed
def a_crash_before_the_commit_of_an_ack(story: Story) -> None:
    """What was seen comes again, from the first result whose acknowledgement was committed."""
    a = story.client()
    a.whole("x", "one", "two", "three")
    a.calls["x"].acked = False
    story.crash()
    a.dial()
    a.welcome(seq=3)
    a.results("x", 1)
    a.end("x")
    a.ack("x")
    story.say("quiet")


@allowed
def a_crash_of_a_crashed_recovery(story: Story) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.begin("x")
    story.crash()
    story.crash()
    story.crash()
    a.connect()
    a.run("x")
    a.end("x")


@allowed
def a_request_that_must_not_run_twice(story: Story) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.begin("x", replay="never")
    story.crash()
    a.connect()
    a.fail("x", "interrupted")


@allowed
def a_request_given_up(story: Story) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.begin("x")
    a.emit("x", "item")
    a.finish("x", "raised")
    story.crash()
    a.connect()
    a.fail("x", "handler_error")


@allowed
def an_orderly_restart(story: Story) -> None:
    """It counts exactly: what waited runs in its first attempt."""
    a = story.client()
    a.ask("x", "y")
    a.accept("x", "y")
    a.begin("x")
    a.finish("x", "cancelled")
    a.disconnect(1012)
    story.crash(code=0)
    a.connect()
    a.run("x")
    a.run("y")
    a.end("x")
    a.end("y")


@allowed
def a_session_that_was_never_durable(story: Story) -> None:
    a = story.client()
    a.ask("x")
    story.crash()
    a.dial()
    a.session = "new"
    a.welcome(resumed=False, reason="unknown_session", seq=0)
    a.whole("x")


@allowed
def cancelled_while_it_waited(story: Story) -> None:
    """It ends at once, before the requests ahead of it, and in a later epoch, too."""
    a = story.client()
    a.ask("x", "y", "z")
    a.accept("x", "y", "z")
    a.begin("x")
    a.send({"type": "cancel", "id": "y"})
    a.fail("y", "cancelled", attempt=0)
    a.calls["y"].attempt = 0
    story.crash()
    a.connect()
    a.run("x")
    a.end("x")
    a.run("z")
    a.end("z")


@allowed
def cancelled_while_it_ran(story: Story) -> None:
    a = story.client()
    a.ask("x", "y")
    a.accept("x", "y")
    a.begin("x")
    a.emit("x", "item", "never sent")
    a.result("x", 0)
    a.send({"type": "cancel", "id": "x"})
    a.finish("x", "cancelled")
    a.begin("y")
    a.fail("x", "cancelled")
    a.finish("y")
    a.end("y")


@allowed
def cancelled_with_bye(story: Story) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.send({"type": "bye", "cancel": True})
    a.disconnect(1000)
    story.crash(session_a=None)
    story.say("quiet")


@allowed
def bye_before_the_end(story: Story) -> None:
    """What was accepted still runs, in the next process, too; nobody gets its results."""
    a = story.client()
    a.ask("x", "y")
    a.accept("x", "y")
    a.run("x", "item")
    a.send({"type": "bye"})
    a.disconnect(1000)
    a.calls["x"].acked = True
    story.crash(session_a=a.said() | {"closed": True})
    a.run("y")
    story.crash(code=0, session_a=None)


@allowed
def a_refused_request_sent_again(story: Story) -> None:
    a = story.client()
    a.ask("x", "y")
    a.refuse("window_exceeded", id="x")
    a.accept("y")
    a.ask("x")
    a.accept("x")


@allowed
def a_duplicate_before_the_commit(story: Story) -> None:
    """It has one answer: its commit is on the way, and so is `accepted`."""
    a = story.client()
    a.ask("x", "x")
    a.accept("x")
    a.run("x")
    a.end("x")
    a.ack("x")
    a.ask("x")
    a.accept("x", duplicate=True, state="acknowledged")
    story.say("quiet")


@allowed
def a_conflict_before_the_commit(story: Story) -> None:
    a = story.client()
    a.ask("x")
    a.ask("x", params={"k": 2})
    a.refuse("id_conflict", id="x")
    a.accept("x")
    a.begin("x", params={"k": 1})


@allowed
def a_commit_that_is_on_its_way_while_the_client_resumes(story: Story) -> None:
    """`welcome` does not list it yet; `accepted` comes on the new connection."""
    a = story.client()
    a.ask("x")
    a.disconnect()
    a.dial()
    a.take("x")
    a.begin("x")
    a.welcome(requests=[])
    a.ask("x", "y")
    a.accept("x", "y")
    a.finish("x")
    a.end("x")


@allowed
def an_old_connection_that_is_read_late(story: Story) -> None:
    """After a takeover its buffers still hold what the new connection gives once more."""
    a = story.client()
    a.ask("x", "x")
    a.accept("x")
    a.run("x", "one", "two")
    a.result("x", 0)
    old, new = a.conn, a.conn + 1
    a.dial()
    a.welcome(seq=3)
    a.seq = 1
    a.result("x", 1)
    a.end("x")
    a.ack("x")
    a.conn = old
    a.accept("x", duplicate=True, state="running")
    a.seq = 1
    a.result("x", 1)
    a.end("x")
    a.disconnect(4509)
    a.conn = new
    a.ask("y")
    a.accept("y")


@allowed
def a_dead_server_that_is_read_late(story: Story) -> None:
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.begin("x")
    a.emit("x", "item")
    story.crash()
    a.begin("x")
    a.emit("x", "item")
    a.result("x", 0, attempt=1)
    a.disconnect()
    a.connect()
    a.finish("x")
    a.results("x")
    a.end("x")


@allowed
def results_before_the_end_of_the_request_ahead(story: Story) -> None:
    a = story.client()
    a.ask("x", "y")
    a.accept("x", "y")
    a.run("x", "one")
    a.results("x")
    a.run("y", "two")
    a.results("y")
    a.end("x")
    a.end("y")


@allowed
def a_process_of_the_pool_that_dies(story: Story) -> None:
    """The attempt has no end in the history; the next one may be of the next request."""
    a = story.client()
    a.ask("x", "y")
    a.accept("x", "y")
    a.begin("x", pid=POOL_PID)
    a.begin("x", pid=POOL_PID + 1)
    a.fail("x", "interrupted")
    a.run("y")
    a.end("y")


@allowed
def a_live_method(story: Story) -> None:
    """Its results have no number, and show gaps."""
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.begin("x", live=True)
    a.emit("x", 0, 1, 2, 3)
    frame = {"type": "result", "id": "x", "attempt": 1}
    a.recv(frame | {"index": 0, "data": 0})
    a.recv(frame | {"index": 2, "data": 2})
    a.finish("x")
    a.end("x")


def _zombie(story: Story) -> Client:
    """Return a client of s1, which is stopped while s2 takes over, and then goes on."""
    a = story.client()
    a.ask("x", "y")
    a.accept("x", "y")
    story.say("pause", server="s1")
    story.up()
    a.disconnect()
    a.calls["x"].attempt = a.calls["y"].attempt = 1
    a.connect()
    return a


@allowed
def a_zombie_that_runs_its_queue(story: Story) -> None:
    a = _zombie(story)
    a.run("x", "item")
    a.results("x")
    a.end("x")
    a.begin("y")
    story.say("continue", server="s1")
    for call_id in "xy":
        a.begin(call_id, server="s1", attempt=1)
        run = {"server": "s1", "pid": 100, "session": a.session, "n": a.calls[call_id].n}
        story.say("end", **run, attempt=1, how="returned")
        a.calls[call_id].attempt = 2
    story.down("s1", code=1)
    a.finish("y")
    a.end("y")
    a.ack("x", "y")
    story.say("quiet")


@allowed
def a_zombie_that_welcomes(story: Story) -> None:
    """It knows nothing of what its successor accepted, and says so."""
    a = _zombie(story)
    a.ask("z")
    a.accept("z")
    story.say("continue", server="s1")
    a.disconnect()
    a.dial("s1")
    a.welcome(requests=[a.status("x"), a.status("y")], seq=0)
    a.disconnect()
    story.down("s1", code=1)
    a.connect()
    a.run("x")
    a.end("x")


@allowed
def a_zombie_whose_commit_came_before_the_seal(story: Story) -> None:
    """Its promise is late, but true."""
    a = story.client()
    a.ask("x")
    story.say("pause", server="s1")
    story.up()
    story.client("b")
    story.say("continue", server="s1")
    a.accept("x")
    a.disconnect()
    a.calls["x"].attempt = 1
    a.connect()
    a.run("x")
    a.end("x")


@allowed
def a_successor_that_may_not_start(story: Story) -> None:
    """The file of SQLite is locked: the stopped process is still the only one."""
    a = story.client()
    a.ask("x")
    story.say("pause", server="s1")
    story.up()
    story.down(code=1)
    story.server = "s1"
    story.say("continue", server="s1")
    a.accept("x")
    a.run("x")
    a.end("x")


@allowed
def an_id_used_again_after_it_may_be_forgotten(story: Story) -> None:
    a = story.client()
    for number in range(ACKNOWLEDGED_MAX + 1):
        a.whole(f"{number}")
    a.calls["again"] = a.calls.pop("0")
    a.whole("0")


@allowed
def a_first_frame_that_is_nonsense(story: Story) -> None:
    a = Client(story, "a")
    a.conn = story.conn()
    story.say("connect", client="a", conn=a.conn, server="s1")
    a.send("nonsense")
    a.refuse("bad_frame")
    a.disconnect(4500)


@pytest.mark.parametrize("tell", STORIES, ids=lambda tell: tell.__name__)
def test_a_true_history_breaks_no_rule(tell: Callable[[Story], None]) -> None:
    story = Story()
    tell(story)
    assert check(story.events) is None


# What is wrong with the history and not with the server


@pytest.mark.parametrize(
    "event",
    [
        {"ev": "kill", "server": "s9"},
        {"ev": "up", "server": "s1", "pid": 1, "journal": "j"},
        {"ev": "recv", "client": "a", "conn": 9, "frame": {"type": "goaway"}},
        {"ev": "connect", "client": "a", "conn": 1},
        {"ev": "connect", "client": "a", "conn": 2, "server": "s9"},
        {"ev": "emit", "server": "s1", "pid": 1, "session": "session_a", "n": 1, "attempt": 2}
        | {"index": 0, "data": 0},
        {"ev": "emit", "server": "s1", "pid": 1, "session": "session_a", "n": 1, "attempt": 1}
        | {"index": 5, "data": 0},
    ],
    ids=lambda event: event["ev"],
)
def test_an_impossible_history_is_an_error(event: dict[str, object]) -> None:
    story = Story()
    a = story.client()
    a.ask("x")
    a.accept("x")
    a.begin("x")
    story.say(**event)  # type: ignore[arg-type]
    with pytest.raises(HistoryError):
        check(story.events)


def test_a_client_that_says_it_has_seen_what_it_has_not_is_an_error() -> None:
    story = Story()
    a = story.client()
    a.connect(welcome={"seq": 9}, seq=9)
    with pytest.raises(HistoryError, match="has seen event 9"):
        check(story.events)


# Memory


def test_what_is_remembered_does_not_grow_with_the_history() -> None:
    story = Story()
    checker = Checker()
    a = story.client()
    sizes = set[tuple[int, ...]]()
    for number in range(2 * ACKNOWLEDGED_MAX):
        a.whole(f"{number}", "item")
        for event in story.events:
            assert checker.feed(event) is None
        story.events.clear()
        session = checker.world.sessions["session_a"]
        if number > ACKNOWLEDGED_MAX:
            runs = sum(len(request.runs) for request in session.requests.values())
            sizes.add((len(session.requests), len(session.ids), len(session.asked), runs))
    assert len(sizes) == 1
    assert max(sizes)[3] <= DATA_MAX
