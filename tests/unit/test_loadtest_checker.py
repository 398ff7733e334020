"""scripts/loadtesting/checker.py: an honest server is believed, every fault is told."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from protocol import frames as wire
from protocol.codec import FrameError, decode_server_message
from scripts.loadtesting.checker import Checker, Kind

Frames = list[wire.ServerFrame | FrameError]


def welcome(
    *requests: wire.RequestStatus, session: str = "s", epoch: str = "e1", resumed: bool = True
) -> wire.Welcome:
    limits = wire.Limits(64, 2**20, 2**20, 60)
    server = wire.ServerInfo("fake", "0")
    return wire.Welcome(session, resumed, epoch, 0, list(requests), 0, limits, server)


def listed(number: int, state: wire.RequestPhase = "waiting", n: int = 0) -> wire.RequestStatus:
    return wire.RequestStatus(str(number), n or number, state, 1, 0)


def accepted(number: int, n: int = 0, *, duplicate: bool = False) -> wire.Accepted:
    return wire.Accepted(str(number), n or number, duplicate)


def result(number: int, seq: int, index: int = 0, attempt: int = 1) -> wire.Result:
    return wire.Result(str(number), attempt, index, Raw(b"0"), seq)


def done(number: int, seq: int, results: int = 1, attempt: int = 1) -> wire.Done:
    return wire.Done(str(number), seq, attempt, results)


def refused(number: int, code: str = "overloaded") -> wire.Error:
    return wire.Error(code, "no", retryable=True, id=str(number))


class Session(Checker):
    """A checker that remembers what it was told, welcomed as a new session."""

    def __init__(self, requests: int = 0) -> None:
        self.found: list[tuple[Kind, str]] = []
        super().__init__(lambda kind, text: self.found.append((kind, text)))
        self.welcome(welcome(resumed=False))
        self.send([float(k) for k in range(1, requests + 1)])

    @property
    def kinds(self) -> list[Kind]:
        return [kind for kind, _ in self.found]


# Histories of honest servers, and what happens to them


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, Frames]:
    """Return the number of requests, and frames as a server may send them."""
    results = draw(st.lists(st.integers(0, 3), min_size=1, max_size=6))
    frames: Frames = []
    waiting: list[tuple[int, int]] = []  # ended, but their end is not committed yet
    seq = 0
    last_accepted = 0

    def end(number: int, count: int) -> None:
        nonlocal seq
        seq += 1
        frames.append(done(number, seq, count))

    for number, count in enumerate(results, start=1):
        while last_accepted < number or (last_accepted < len(results) and draw(st.booleans())):
            last_accepted += 1
            frames.append(accepted(last_accepted))
        for index in range(count):
            while waiting and draw(st.booleans()):
                end(*waiting.pop(0))
            seq += 1
            frames.append(result(number, seq, index))
        waiting.append((number, count))
    for pair in waiting:
        end(*pair)
    return len(results), frames


@given(histories())
def test_an_honest_server_is_believed(history: tuple[int, Frames]) -> None:
    """Results may come before the end of the request before; nothing of that is a violation."""
    requests, frames = history
    session = Session(requests)
    session.receive(frames)
    assert session.found == []
    assert session.unfinished == 0
    assert session.ends == sorted(session.firsts) == [float(k) for k in range(1, requests + 1)]


@given(histories(), st.data())
def test_a_lost_frame_is_noticed(history: tuple[int, Frames], data: st.DataObject) -> None:
    """Whichever it is; without the last one there is still a request that did not end."""
    requests, frames = history
    del frames[data.draw(st.integers(0, len(frames) - 1))]
    session = Session(requests)
    session.receive(frames)
    assert session.found or session.unfinished


@given(histories(), st.data())
def test_a_repeated_frame_is_noticed(history: tuple[int, Frames], data: st.DataObject) -> None:
    """Whichever it is, and wherever it comes again."""
    requests, frames = history
    first = data.draw(st.integers(0, len(frames) - 1))
    again = data.draw(st.integers(first + 1, len(frames)))
    frames.insert(again, frames[first])
    session = Session(requests)
    session.receive(frames)
    assert Kind.REPEATED in session.kinds


@given(histories(), st.data())
def test_an_event_in_the_wrong_place_is_noticed(
    history: tuple[int, Frames], data: st.DataObject
) -> None:
    """Two events that change places have the wrong numbers."""
    requests, frames = history
    events = [k for k, frame in enumerate(frames) if not isinstance(frame, wire.Accepted)]
    a, b = (
        data.draw(st.lists(st.sampled_from(events), min_size=2, max_size=2, unique=True))
        if (len(events) > 1)
        else (0, 0)
    )
    frames[a], frames[b] = frames[b], frames[a]
    session = Session(requests)
    session.receive(frames)
    assert bool(session.found) == (a != b)


# Order


@pytest.mark.parametrize(
    ("frames", "kinds"),
    [
        pytest.param([accepted(2, n=1)], [Kind.ORDER], id="accepted before its elder"),
        pytest.param(
            [accepted(2, n=2), accepted(1, n=1)], [Kind.ORDER], id="reported once when it follows"
        ),
        pytest.param([accepted(1, n=2)], [Kind.LOST], id="a position left out"),
        pytest.param([accepted(1), accepted(2, n=1)], [Kind.REPEATED], id="a position twice"),
        pytest.param([accepted(1), accepted(1)], [Kind.REPEATED], id="accepted twice"),
        pytest.param([accepted(1, duplicate=True)], [Kind.REPEATED], id="not sent twice"),
        pytest.param(
            [accepted(1), accepted(1, duplicate=True)], [Kind.REPEATED], id="answered twice"
        ),
        pytest.param(
            [accepted(1), result(1, 1), done(1, 2), accepted(1, duplicate=True)],
            [Kind.REPEATED],
            id="answered twice after its end",
        ),
        pytest.param([accepted(7)], [Kind.UNKNOWN], id="never sent"),
        pytest.param([result(1, 1)], [Kind.ORDER], id="a result before accepted"),
        pytest.param([accepted(1), result(1, 2)], [Kind.LOST], id="an event left out"),
        pytest.param([accepted(1), result(1, 1, index=1)], [Kind.LOST], id="a result left out"),
        pytest.param(
            [accepted(1), result(1, 1), result(1, 2)], [Kind.REPEATED], id="a result twice"
        ),
        pytest.param(
            [accepted(1), result(1, 1), result(1, 1)], [Kind.REPEATED], id="an event twice"
        ),
        pytest.param(
            [accepted(1), result(1, 1), done(1, 2, results=2)], [Kind.LOST], id="results missing"
        ),
        pytest.param(
            [accepted(1), result(1, 1), done(1, 2), done(1, 3)], [Kind.REPEATED], id="two ends"
        ),
        pytest.param(
            [accepted(1), accepted(2), result(2, 1), result(1, 2)],
            [Kind.ORDER],
            id="begun after a later one",
        ),
        pytest.param(
            [accepted(1), accepted(2), result(1, 1), result(2, 2), done(2, 3)],
            [Kind.ORDER],
            id="ended before an earlier one",
        ),
        pytest.param([accepted(1), refused(1)], [Kind.ORDER], id="refused after accepted"),
        pytest.param([refused(9)], [Kind.UNKNOWN], id="refused what was never sent"),
        pytest.param(
            [accepted(1), result(1, 1, attempt=2), result(1, 2, index=1, attempt=1)],
            [Kind.REPEATED],
            id="an attempt that is over",
        ),
    ],
)
def test_a_fault_is_told_by_its_kind(frames: Sequence[wire.ServerFrame], kinds: list[Kind]) -> None:
    """One fault, one report."""
    session = Session(requests=3)
    session.receive(frames)
    assert session.kinds == kinds


def test_frames_of_a_newer_server_are_ignored() -> None:
    """A type that is not known is no violation, a frame that cannot be read is."""
    session = Session()
    session.receive(decode_server_message(b'{"type":"later","x":1}'))
    assert session.found == []
    session.receive(decode_server_message(b'{"type":"done","id":1}\n{nonsense'))
    assert session.kinds == [Kind.UNKNOWN, Kind.UNKNOWN]


# Errors that are no violations


def test_a_refusal_is_a_failure_and_leaves_no_gap() -> None:
    """The request after the refused one is accepted next."""
    session = Session(requests=2)
    session.receive([refused(1), accepted(2, n=1)])
    assert session.found == []
    assert session.failures == [(1.0, "overloaded")]
    assert session.refused
    assert session.unfinished == 1


def test_an_error_that_ends_a_request_is_a_failure() -> None:
    """It is an event like `done`, and may come after results."""
    session = Session(requests=1)
    end = wire.Error("timeout", "too slow", retryable=False, id="1", seq=2, attempt=1)
    session.receive([accepted(1), result(1, 1), end])
    assert session.found == []
    assert session.failures == [(1.0, "timeout")]
    assert session.ends == []
    assert not session.refused


def test_an_error_about_no_request_is_a_complaint() -> None:
    """It is counted by its code."""
    session = Session()
    session.receive([wire.Error("bad_frame", "ack: too far", retryable=False)])
    assert session.complaints == ["bad_frame"]
    assert session.found == []


def test_a_process_that_died_makes_another_attempt() -> None:
    """Its results begin again, in the same epoch; the first result is the first of all."""
    session = Session(requests=1)
    session.receive([accepted(1), result(1, 1), result(1, 2, index=1)])
    session.receive([result(1, 3, attempt=2), done(1, 4, attempt=2)])
    assert session.found == []
    assert session.firsts == session.ends == [1.0]


# Lost connections and crashes


def test_what_was_never_accepted_is_sent_again_in_order() -> None:
    """The manifest tells what was; the rest is accepted after it."""
    session = Session(requests=4)
    session.receive([accepted(1)])
    assert session.welcome(welcome(listed(1), listed(2))) == [3, 4]
    session.receive([result(1, 1), accepted(3), done(1, 2), accepted(4)])
    assert session.found == []
    assert session.unfinished == 3


def test_a_commit_on_its_way_answers_twice() -> None:
    """A request sent again while its commit was on the way gets `accepted` once more."""
    session = Session(requests=1)
    assert session.welcome(welcome()) == [1]
    session.receive([accepted(1), result(1, 1), done(1, 2), accepted(1, duplicate=True)])
    assert session.found == []
    assert session.ends == [1.0]


def test_an_accepted_request_that_is_gone_is_lost() -> None:
    """G1: accepted is durable."""
    session = Session(requests=2)
    session.receive([accepted(1), accepted(2)])
    session.welcome(welcome(listed(2), epoch="e2"))
    assert session.kinds == [Kind.LOST]
    assert session.unfinished == 1


def test_an_ended_request_that_runs_again_is_told() -> None:
    """G2: a request whose end was seen never runs again."""
    session = Session(requests=1)
    session.receive([accepted(1), result(1, 1), done(1, 2)])
    session.welcome(welcome(listed(1, "waiting"), epoch="e2"))
    assert session.kinds == [Kind.REPEATED]


def test_a_new_epoch_replays_what_was_not_acknowledged() -> None:
    """Ended requests come again and do not count; running ones begin again; numbers begin at 1."""
    session = Session(requests=3)
    session.receive([accepted(1), accepted(2), accepted(3), result(1, 1), done(1, 2), result(2, 3)])
    session.firsts.clear()
    session.ends.clear()
    again = session.welcome(
        welcome(listed(1, "ended"), listed(2, "running"), listed(3), epoch="e2")
    )
    assert again == []
    session.receive([result(1, 1), done(1, 2), result(2, 3, attempt=2), done(2, 4, attempt=2)])
    session.receive([result(3, 5, attempt=2), done(3, 6, attempt=2)])
    assert session.found == []
    assert session.firsts == [3.0]
    assert session.ends == [2.0, 3.0]
    assert session.unfinished == 0


def test_results_acknowledged_before_the_crash_need_not_come_again() -> None:
    """The rest of the same attempt follows without a gap."""
    session = Session(requests=1)
    session.receive([accepted(1), result(1, 1), result(1, 2, index=1)])
    session.welcome(welcome(listed(1, "ended"), epoch="e2"))
    session.receive([result(1, 1, index=1), result(1, 2, index=2), done(1, 3, results=3)])
    assert session.found == []


def test_a_result_missing_after_the_crash_is_lost() -> None:
    """G5: every event that was not seen."""
    session = Session(requests=1)
    session.receive([accepted(1), result(1, 1)])
    session.welcome(welcome(listed(1, "ended"), epoch="e2"))
    session.receive([result(1, 1, index=2)])
    assert session.kinds == [Kind.LOST]


def test_an_event_again_in_the_same_epoch_is_repeated() -> None:
    """G5: none twice."""
    session = Session(requests=1)
    session.receive([accepted(1), result(1, 1)])
    session.welcome(welcome(listed(1, "running")))
    session.receive([result(1, 1)])
    assert session.kinds == [Kind.REPEATED]


def test_a_request_left_out_by_the_manifest_is_told() -> None:
    """Positions are dense there too."""
    session = Session(requests=2)
    session.welcome(welcome(listed(2, n=2)))
    assert session.kinds == [Kind.LOST]


def test_a_manifest_with_what_was_never_sent_is_told() -> None:
    """Nobody else uses this session."""
    session = Session(requests=1)
    session.welcome(welcome(listed(5, n=1)))
    assert session.kinds == [Kind.UNKNOWN]


def test_a_session_that_is_forgotten_is_lost() -> None:
    """Its accepted requests with it; what was not accepted is sent to the new session."""
    session = Session(requests=2)
    session.receive([accepted(1)])
    assert session.welcome(welcome(session="s2", epoch="e2", resumed=False)) == [2]
    assert session.kinds == [Kind.LOST]
    session.receive([accepted(2, n=1), result(2, 1), done(2, 2)])
    assert session.kinds == [Kind.LOST]


def test_a_session_without_accepted_requests_may_be_forgotten() -> None:
    """It becomes durable with its first accepted request."""
    session = Session(requests=1)
    assert session.welcome(welcome(session="s2", epoch="e2", resumed=False)) == [1]
    session.receive([accepted(1)])
    assert session.found == []


def test_live_results_are_lost_with_the_connection_only() -> None:
    """They carry no numbers and are not kept, but on one connection none is missing."""
    session = Session(requests=2)
    session.receive([accepted(1), accepted(2), result(1, 0)])
    session.welcome(welcome(listed(1, "running"), listed(2)))
    session.receive([result(1, 0, index=4), done(1, 1, results=6)])
    assert session.found == []
    session = Session(requests=1)
    session.receive([accepted(1), result(1, 0), result(1, 0, index=2)])
    assert session.kinds == [Kind.LOST]


def test_the_way_back_that_the_server_asks_for_is_kept() -> None:
    """For whoever connects again."""
    session = Session()
    session.receive([wire.GoAway("restart", 1.5)])
    assert session.reconnect_after_seconds == 1.5
