"""scripts/loadtesting/meter.py: which requests belong to the measurement, and merging."""

import pytest

from scripts.loadtesting.checker import Checker, Kind
from scripts.loadtesting.meter import EXAMPLES_MAX, Meter, Tick, Totals


def meter(*, open_loop: bool = False) -> Meter:
    made = Meter(open_loop=open_loop)
    made.start, made.stop = 10.0, 20.0
    return made


def answer(meter: Meter, now: float, ends: list[float]) -> None:
    checker = Checker(lambda kind, text: None)
    checker.firsts = list(ends)
    checker.ends = list(ends)
    meter.take(checker, now)
    assert not checker.firsts
    assert not checker.ends


def test_requests_count_by_when_they_were_due() -> None:
    """From start up to stop, whenever they are sent and end."""
    found = meter()
    due = [9.9, 10.0, 15.0, 19.9, 20.0]
    found.sent(due, now=21.0)
    answer(found, 25.0, due)
    assert found.totals.sent == found.totals.done == found.totals.dones.count == 3
    assert found.totals.unfinished == 0
    assert found.tick.sent == found.tick.done == 5  # the live line shows everything


def test_latencies_count_from_when_a_request_was_due() -> None:
    """Coordinated omission: what a stalled server kept from being sent has waited too."""
    found = meter(open_loop=True)
    found.sent([11.0], now=14.0)
    answer(found, 15.0, [11.0])
    assert found.totals.dones.max_seconds == pytest.approx(4.0)
    assert found.totals.firsts.max_seconds == pytest.approx(4.0)
    assert found.totals.delays.max_seconds == pytest.approx(3.0)


def test_throughput_counts_ends_in_the_measured_time() -> None:
    """Whenever their requests were due."""
    found = meter()
    answer(found, 9.0, [8.0])
    answer(found, 10.0, [9.0])
    answer(found, 19.0, [18.0])
    answer(found, 20.0, [19.0])
    assert found.totals.ended == 2


def test_failures_are_counted_by_code() -> None:
    """All of them by code, those of measured requests as failed."""
    found = meter()
    checker = Checker(lambda kind, text: None)
    checker.failures = [(9.0, "overloaded"), (11.0, "timeout"), (12.0, "timeout")]
    checker.complaints = ["bad_frame"]
    found.sent([9.0, 11.0, 12.0], now=12.0)
    found.take(checker, 13.0)
    assert found.totals.errors == {"overloaded": 1, "timeout": 2, "bad_frame": 1}
    assert found.totals.failed == 2
    assert found.totals.unfinished == 0


def test_the_first_violations_are_kept_in_full() -> None:
    """All are counted."""
    found = meter()
    for number in range(EXAMPLES_MAX + 3):
        found.violated("load-1", Kind.LOST, f"number {number}")
    assert found.totals.violations == {"lost": EXAMPLES_MAX + 3}
    assert found.totals.examples[0] == "lost: load-1: number 0"
    assert len(found.totals.examples) == EXAMPLES_MAX


def test_totals_of_processes_are_merged() -> None:
    """Counts add up, the first reason to stop stays."""
    one, two = meter(), meter()
    for found in (one, two):
        found.sent([11.0, 12.0], now=12.0)
        answer(found, 13.0, [11.0])
        found.violated("x", Kind.ORDER, "y")
        found.totals.cpu_shares = [0.5]
        found.totals.seconds = 10.0
    two.totals.fatal = "gone"
    totals = Totals()
    totals.merge(one.totals)
    totals.merge(two.totals)
    assert (totals.sent, totals.done, totals.unfinished) == (4, 2, 2)
    assert totals.dones.count == 2
    assert totals.violations == {"order": 2}
    assert totals.cpu_shares == [0.5, 0.5]
    assert totals.seconds == 10.0
    assert totals.fatal == "gone"


def test_ticks_add_up() -> None:
    """Of other processes for the same second, of later seconds for one line."""
    tick = Tick(1, at=1.0, seconds=1.0, sent=5, done=4, connected=2)
    tick.merge(Tick(1, at=1.01, seconds=0.9, sent=1, done=1, connected=3))
    assert (tick.at, tick.seconds, tick.sent, tick.done, tick.connected) == (1.01, 1.0, 6, 5, 5)
    tick.extend(Tick(2, at=2.0, seconds=1.0, sent=4, failed=1, connected=4))
    assert (tick.at, tick.seconds, tick.sent, tick.failed, tick.connected) == (2.0, 2.0, 10, 1, 4)
