"""scripts/loadtesting/histogram.py: quantiles within the stated error, whoever counted what."""

from fractions import Fraction
from math import ceil, inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.loadtesting.histogram import ERROR, MAX_SECONDS, MIN_SECONDS, Histogram

TIMES = st.lists(st.floats(MIN_SECONDS, MAX_SECONDS), min_size=1, max_size=300)
SHARES = st.integers(0, 1000)


def histogram(*values: float) -> Histogram:
    made = Histogram()
    made.add(values)
    return made


@given(TIMES, SHARES)
def test_a_quantile_is_within_the_error(times: list[float], share: int) -> None:
    """It is the value of that rank, give or take ERROR."""
    rank = max(1, ceil(Fraction(share, 1000) * len(times)))
    assert histogram(*times).quantile(share / 1000) == pytest.approx(
        sorted(times)[rank - 1], rel=ERROR
    )


@given(TIMES, TIMES, SHARES)
def test_merged_histograms_are_the_histogram_of_all(
    some: list[float], others: list[float], share: int
) -> None:
    """Counting apart and merging gives what counting together gives."""
    merged = histogram(*some)
    merged.merge(histogram(*others))
    together = histogram(*some, *others)
    assert merged.quantile(share / 1000) == together.quantile(share / 1000)
    assert list(merged.curve()) == list(together.curve())
    assert merged.count == together.count
    assert merged.max_seconds == together.max_seconds
    assert merged.mean_seconds == pytest.approx(together.mean_seconds)


@given(TIMES)
def test_the_curve_goes_up_to_the_maximum(times: list[float]) -> None:
    """Shares and times only grow, the last share is that of all values."""
    curve = list(histogram(*times).curve())
    assert curve == sorted(curve)
    assert curve[-1][0] == 1
    assert curve[-1][1] <= max(times)


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 1e-9, 1e5, inf])
def test_times_out_of_range_count_in_the_last_bucket_of_their_side(seconds: float) -> None:
    """They cannot be told apart from each other, but they are not lost, and the maximum is."""
    found = histogram(1.0, seconds)
    assert found.count == 2
    assert found.max_seconds == max(1.0, seconds)
    assert found.quantile(0 if seconds < 1 else 1) == (MIN_SECONDS if seconds < 1 else MAX_SECONDS)


def test_nothing_counted_is_zero() -> None:
    """A histogram that has seen nothing has no quantiles to tell."""
    assert Histogram().quantile(0.99) == 0
    assert Histogram().mean_seconds == 0
    assert not list(Histogram().curve())


def test_memory_does_not_grow_with_the_values() -> None:
    """A million values take the buckets that one takes."""
    found = histogram(0.001)
    buckets = len(found._counts)
    for _ in range(100):
        found.add([0.002] * 10_000)
    assert len(found._counts) == buckets < 2000
