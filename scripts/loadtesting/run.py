"""A finished run: what was asked for, what was measured, and what that means for the exit code."""

import signal
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from .meter import Tick, Totals
from .options import Options

BUSY_SHARE: Final = 0.9
"""A load generator that used more of its core says more about itself than about the server."""

OK: Final = 0
FAILED: Final = 1
UNUSABLE: Final = 2


class Second(NamedTuple):
    """One second of the run: the `seconds` before `at` (the first and the last are shorter)."""

    at: float
    seconds: float
    sent: int
    done: int
    failed: int
    p50: float
    p99: float
    connected: int

    @classmethod
    def of(cls, tick: Tick) -> "Second":
        """Keep of `tick` what is shown."""
        latencies = tick.latencies
        return cls(
            tick.at,
            tick.seconds,
            tick.sent,
            tick.done,
            tick.failed,
            latencies.quantile(0.5),
            latencies.quantile(0.99),
            tick.connected,
        )


@dataclass
class Run:
    """Times in seconds, `started_at` as Unix time, the others since then.

    `stopped_by` is the signal that ended it early.
    """

    options: Options
    started_at: float
    totals: Totals = field(default_factory=Totals)
    seconds: list[Second] = field(default_factory=list[Second])
    measured_from: float = 0.0
    stopped_by: signal.Signals | None = None

    @property
    def measured(self) -> bool:
        """Tell whether there is anything to report."""
        return self.totals.seconds > 0

    @property
    def rate(self) -> float:
        """Requests done per second of the measured time."""
        return self.totals.ended / self.totals.seconds if self.measured else 0.0

    @property
    def limited(self) -> bool:
        """Tell whether the load generator may have been the limit."""
        return max(self.totals.cpu_shares, default=0.0) > BUSY_SHARE

    @property
    def exit_code(self) -> int:
        """What `--help` says."""
        totals = self.totals
        if totals.violations:
            return FAILED
        if totals.fatal is not None:
            return UNUSABLE
        if self.stopped_by is not None:
            return 128 + self.stopped_by  # as shells have it
        failed = totals.errors or totals.unfinished or totals.not_sent
        return FAILED if failed else OK
