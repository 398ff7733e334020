"""What counts, and the table of metrics."""

import re

import pytest

from server.counts import Counts
from server.exposition import _takes_gzip
from server.histogram import Histogram
from server.loop_lag import INTERVAL_SECONDS, MISSED_MAX, LoopLag
from server.metrics import metrics_table


def test_a_value_at_a_bound_is_within_it() -> None:
    histogram = Histogram([1, 2])
    for value in (0.5, 1, 1.5, 2, 3):
        histogram.observe(value)
    assert (histogram.counts, histogram.total) == ([2, 2, 1], 8)


def test_a_value_may_count_for_many() -> None:
    histogram = Histogram([1, 2])
    histogram.observe(1.5, 10)
    assert (histogram.counts, histogram.total) == ([0, 10, 0], 15)


def test_timers_that_a_late_one_kept_away_count_too() -> None:
    lag = LoopLag()
    lag.note(2.5 * INTERVAL_SECONDS)
    assert sum(lag.seconds.counts) == 3
    assert lag.seconds.total == pytest.approx((2.5 + 1.5 + 0.5) * INTERVAL_SECONDS)


def test_a_process_that_was_stopped_for_a_day_counts_a_bounded_number_of_them() -> None:
    lag = LoopLag()
    lag.note(86_400)
    assert sum(lag.seconds.counts) == MISSED_MAX + 1


def test_codes_of_handlers_are_one_outcome_whatever_they_are() -> None:
    counts = Counts()
    for number in range(1000):
        counts.end("m", f"code_{number}")
    assert counts.ended_otherwise == {("m", "request_error"): 1000}


def test_every_metric_is_named_as_prometheus_wants_it() -> None:
    rows = metrics_table()
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert re.fullmatch(r"queuesystem_[a-z_]+[a-z]", row.name), row
        assert row.name.endswith("_total") == (row.type == "counter"), row
        assert row.help.endswith(".") or row.help.endswith("without."), row


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ("gzip", True),
        ("deflate, gzip;q=0.5", True),
        ("GZIP", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("gzip;q=1", True),
        ("gzip;q=1.0", True),
        ("", False),
        ("identity", False),
    ],
)
def test_gzip_is_taken_when_it_is_asked_for(header: str, taken: bool) -> None:
    assert _takes_gzip(header) is taken
