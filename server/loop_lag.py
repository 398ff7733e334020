"""How late the event loop is: a timer several times a second, and how late it comes.

Everything runs in one event loop, so what holds it up holds up every client.
"""

import asyncio
import time
from typing import Final

from server.histogram import Histogram

INTERVAL_SECONDS: Final = 0.2
LAG_SECONDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
MISSED_MAX: Final = 300
"""So many missed timers are counted at most: a process that was stopped for an hour tells no more
about its loop than one that was for a minute."""


class LoopLag:
    """Measures the loop it runs in. `seconds` has the lateness of each timer.

    Timers that a late one kept from being set are counted as late as they would have been: or a
    loop that stands still for a second would count as little as one that is late for a moment.
    """

    def __init__(self) -> None:
        self.seconds = Histogram(LAG_SECONDS)

    async def run(self) -> None:
        """Measure for ever."""
        while True:
            due = time.monotonic() + INTERVAL_SECONDS
            await asyncio.sleep(INTERVAL_SECONDS)
            self.note(time.monotonic() - due)

    def note(self, late_seconds: float) -> None:
        """Count a timer that came so late (or a little early: clocks differ), and those missed."""
        late = max(0.0, late_seconds)
        self.seconds.observe(late)
        missed = min(int(late / INTERVAL_SECONDS), MISSED_MAX)
        for number in range(1, missed + 1):
            self.seconds.observe(max(0.0, late - number * INTERVAL_SECONDS))
