"""The time by which things that are kept for a while have grown old."""

import time
from collections.abc import Callable


class AgeClock:
    """Gives Unix times that are never ahead, whoever sets the system's clock.

    A clock that is set forward by a day must not make a day old what came a moment ago. So this
    one goes on at its own pace, but goes along when the system's clock is set back: what is
    stamped from then on must not seem old either. What was stamped before is kept for longer.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._ahead = wall() - monotonic()

    def __call__(self) -> float:
        """Return the time: the system's, or an earlier one."""
        return min(self._wall(), self._monotonic() + self._ahead)
