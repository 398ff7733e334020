"""scripts/loadtesting/schedule.py: when requests are due, and where they wait."""

import pytest

from scripts.loadtesting.schedule import Arrivals, Backlog, ClosedLoop


def test_arrivals_are_at_fixed_times_and_dealt_in_turn() -> None:
    """Whenever one looks, what came due until then is there, each once."""
    arrivals = Arrivals(start=10.0, rate=4.0, connections=3)
    assert list(arrivals.until(9.9)) == []
    assert list(arrivals.until(10.3)) == [(0, 10.0), (1, 10.25)]
    assert arrivals.next_due == 10.5
    assert list(arrivals.until(11.0)) == [(2, 10.5), (0, 10.75), (1, 11.0)]


def test_arrivals_do_not_drift() -> None:
    """Rounding does not add up: an hour at an odd rate has the requests it should have."""
    arrivals = Arrivals(start=0.0, rate=7.3, connections=1)
    assert sum(1 for _ in arrivals.until(3600.0)) == pytest.approx(7.3 * 3600, abs=1)


def test_a_stall_delays_no_due_time() -> None:
    """Who looks late finds the times at which requests were due, not the time of looking."""
    backlog = Backlog(limit=100)
    for _, due in Arrivals(start=0.0, rate=10.0, connections=1).until(5.0):
        backlog.put(due)
    assert backlog.waiting == 51
    assert backlog.take(3, now=5.0) == pytest.approx([0.0, 0.1, 0.2])


def test_a_full_backlog_refuses() -> None:
    """What has no place is told, so that it can be counted."""
    backlog = Backlog(limit=2)
    assert [backlog.put(due) for due in (1.0, 2.0, 3.0)] == [True, True, False]
    assert backlog.take(1, now=9.0) == [1.0]
    assert backlog.put(4.0)
    assert backlog.stop() == [2.0, 4.0]
    assert backlog.waiting == 0


def test_the_closed_loop_has_a_request_for_every_room() -> None:
    """They are due now, until it is stopped."""
    supply = ClosedLoop()
    assert supply.take(3, now=7.0) == [7.0, 7.0, 7.0]
    assert supply.stop() == []
    assert supply.take(3, now=8.0) == []
