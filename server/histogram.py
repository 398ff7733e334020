"""How often values fell between fixed bounds: what a histogram costs where it is counted.

One bisection and two additions; the collector (metrics.py) makes samples of it when asked. It
imports nothing, so that every room of the server may count with it.
"""

from bisect import bisect_left
from collections.abc import Sequence


class Histogram:
    """Counts values up to each of `bounds` (ascending, inclusive), and those above the last.

    `counts` has one number per bound and one more; they do not include each other. `total` is the
    sum of the values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count `value`, so many times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times
