"""Repetitions of one number: the median is what counts, the extremes say how far to trust it."""

from collections.abc import Iterable, Sequence
from statistics import median
from typing import NamedTuple


class Spread(NamedTuple):
    """The median of some repetitions, the least and the greatest of them."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Sum up repetitions, of which there must be one at least."""
        found = list(values)
        return cls(median(found), min(found), max(found))

    @classmethod
    def of_ratios(cls, ours: Sequence[float], others: Sequence[float]) -> "Spread":
        """Sum up ours / other, pair by pair.

        The two of a pair were measured one right after the other, because what else the machine
        does changes more slowly than that.
        """
        return cls.of(one / other for one, other in zip(ours, others, strict=True))

    def __format__(self, spec: str) -> str:
        """Format all three numbers alike, as `median (min-max)`."""
        middle, lowest, highest = (format(number, spec or ".2f") for number in self)
        return f"{middle} ({lowest}-{highest})"

    def __str__(self) -> str:
        return format(self)
