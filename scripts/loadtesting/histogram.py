"""A histogram of times in logarithmic buckets: bounded memory, a stated error, mergeable. No I/O.

    bucket 0: up to 1 us    bucket i: (1 us * 1.02^(i-1), 1 us * 1.02^i]    last: an hour or more

A bucket stands for its geometric middle, which is at most 1 % away from everything in it.
"""

from collections.abc import Iterable, Iterator
from math import ceil, log, sqrt
from typing import Final

ERROR: Final = 0.01
"""A quantile differs from the true one by this share at most, between MIN and MAX."""
MIN_SECONDS: Final = 1e-6
"""Shorter times count as this."""
MAX_SECONDS: Final = 3600.0
"""Longer times share the last bucket; only `max_seconds` is exact for them."""

_GROWTH: Final = 1.0198
"""Its square root is below 1 + ERROR, with some room for rounding."""
_SCALE: Final = 1 / log(_GROWTH)
_LAST: Final = ceil(log(MAX_SECONDS / MIN_SECONDS) * _SCALE)
_ROUNDING: Final = 1e-6
"""Of the rank of a quantile: 0.999 of 1000 values are 999 of them, whatever floats say."""


class Histogram:
    """How often which time was seen; about 1,100 buckets, however many values there are."""

    __slots__ = ("_counts", "count", "max_seconds", "sum_seconds")

    def __init__(self) -> None:
        self.count = 0
        self.sum_seconds = 0.0
        self.max_seconds = 0.0
        self._counts = [0] * (_LAST + 1)

    def add(self, values: Iterable[float]) -> None:
        """Count these times, in seconds."""
        counts = self._counts
        longest = self.max_seconds
        added = 0
        total = 0.0
        for seconds in values:
            added += 1
            total += seconds
            longest = max(longest, seconds)
            if seconds <= MIN_SECONDS:
                counts[0] += 1
            elif seconds >= MAX_SECONDS:
                counts[_LAST] += 1
            else:
                counts[ceil(log(seconds / MIN_SECONDS) * _SCALE)] += 1
        self.count += added
        self.sum_seconds += total
        self.max_seconds = longest

    def merge(self, other: "Histogram") -> None:
        """Count what `other` has counted too."""
        self.count += other.count
        self.sum_seconds += other.sum_seconds
        self.max_seconds = max(self.max_seconds, other.max_seconds)
        counts = other._counts  # noqa: SLF001 - it is one of us
        self._counts = [a + b for a, b in zip(self._counts, counts, strict=True)]

    def quantile(self, share: float) -> float:
        """Return the shortest time that `share` (0 to 1) of the values do not exceed.

        In seconds; 0 when nothing was counted.
        """
        rank = max(1, ceil(share * self.count - _ROUNDING))
        seen = 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if seen >= rank:
                return min(_middle(bucket), self.max_seconds)
        return 0.0

    def curve(self) -> Iterator[tuple[float, float]]:
        """Yield (share, seconds) for every bucket in use: so many values do not exceed it."""
        seen = 0
        for bucket, count in enumerate(self._counts):
            if count:
                seen += count
                yield seen / self.count, min(_middle(bucket), self.max_seconds)

    @property
    def mean_seconds(self) -> float:
        """The mean, exact; 0 when nothing was counted."""
        return self.sum_seconds / self.count if self.count else 0.0


def _middle(bucket: int) -> float:
    if bucket == 0:
        return MIN_SECONDS
    if bucket == _LAST:
        return MAX_SECONDS
    return MIN_SECONDS * _GROWTH**bucket / sqrt(_GROWTH)
