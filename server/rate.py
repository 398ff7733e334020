"""How many things may happen in a second: a token bucket. No I/O."""

from typing import Final

RETRY_SECONDS_MIN: Final = 0.1
"""Who was turned away is to come back no sooner: by then there is room for more than one again."""


class RateLimit:
    """`per_second` things on average, and `burst` at once after a rest.

    Times are seconds of any one clock. One that was set back gives nothing, and takes nothing.
    """

    __slots__ = ("_at", "_burst", "_per_second", "_tokens")

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._tokens = burst
        self._at = 0.0

    def room(self, now: float) -> int:
        """Return how many may happen now."""
        seconds = now - self._at
        self._at = now
        if seconds > 0:
            tokens = self._tokens + seconds * self._per_second
            self._tokens = tokens if tokens < self._burst else self._burst
        return int(self._tokens)

    def take(self, count: int) -> None:
        """Note that so many have happened; `room` said that they may."""
        self._tokens -= count

    def wait_seconds(self) -> float:
        """Return when to come back, for who found no room."""
        return max(RETRY_SECONDS_MIN, (1 - self._tokens % 1) / self._per_second)
