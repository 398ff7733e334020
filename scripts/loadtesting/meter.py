"""What one process counts: in all, and second by second. Both can be merged with others'.

A request belongs to the measurement when it was due in [start, stop), whenever its end comes; the
throughput counts ends in that time. Violations, errors and lost connections count all the time.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from .checker import Checker, Kind
from .histogram import Histogram

EXAMPLES_MAX: Final = 5
"""So many violations are kept in full."""
EXAMPLE_CHARACTERS_MAX: Final = 500


@dataclass
class Tick:
    """What happened in second number `second` of the run, in the `seconds` before `at`.

    Both in seconds, `at` since the run began; `connected` is how many connections there were then.
    """

    second: int
    at: float = 0.0
    seconds: float = 0.0
    sent: int = 0
    done: int = 0
    failed: int = 0
    connected: int = 0
    latencies: Histogram = field(default_factory=Histogram)

    def merge(self, other: "Tick") -> None:
        """Add the same second of another process."""
        self.at = max(self.at, other.at)
        self.seconds = max(self.seconds, other.seconds)
        self._add(other)
        self.connected += other.connected

    def extend(self, later: "Tick") -> None:
        """Add a later second of the same processes."""
        self.at = later.at
        self.seconds += later.seconds
        self._add(later)
        self.connected = later.connected

    def _add(self, other: "Tick") -> None:
        self.sent += other.sent
        self.done += other.done
        self.failed += other.failed
        self.latencies.merge(other.latencies)


@dataclass
class Totals:
    """What was counted in the whole run.

    `sent`, `done`, `failed` and `not_sent` are requests due in the measured time; `ended` those
    that were done within it. `delays` are the times from due to sent (open loop only).
    `offline` counts connections that were down at the end, `last_loss` tells why. `cpu_shares` has
    one for each process, of its core. `fatal` tells why the run could not go on.
    """

    sent: int = 0
    done: int = 0
    failed: int = 0
    not_sent: int = 0
    ended: int = 0
    firsts: Histogram = field(default_factory=Histogram)
    dones: Histogram = field(default_factory=Histogram)
    delays: Histogram = field(default_factory=Histogram)
    errors: Counter[str] = field(default_factory=Counter[str])
    violations: Counter[str] = field(default_factory=Counter[str])
    examples: list[str] = field(default_factory=list[str])
    checked: int = 0
    closes: Counter[int] = field(default_factory=Counter[int])
    reconnects: int = 0
    offline: int = 0
    last_loss: str | None = None
    seconds: float = 0.0
    cpu_shares: list[float] = field(default_factory=list[float])
    fatal: str | None = None

    @property
    def unfinished(self) -> int:
        """Requests that were sent, and of which no end came."""
        return self.sent - self.done - self.failed

    def merge(self, other: "Totals") -> None:
        """Add those of another process."""
        self.sent += other.sent
        self.done += other.done
        self.failed += other.failed
        self.not_sent += other.not_sent
        self.ended += other.ended
        self.firsts.merge(other.firsts)
        self.dones.merge(other.dones)
        self.delays.merge(other.delays)
        self.errors.update(other.errors)
        self.violations.update(other.violations)
        self.examples = (self.examples + other.examples)[:EXAMPLES_MAX]
        self.checked += other.checked
        self.closes.update(other.closes)
        self.reconnects += other.reconnects
        self.offline += other.offline
        self.last_loss = self.last_loss or other.last_loss
        self.seconds = max(self.seconds, other.seconds)
        self.cpu_shares += other.cpu_shares
        self.fatal = self.fatal or other.fatal


class Meter:
    """The counts of one process. `start` and `stop` (monotonic seconds) are set once known."""

    def __init__(self, *, open_loop: bool) -> None:
        self.start = inf
        self.stop = inf
        self.totals = Totals()
        self.tick = Tick(0)
        self._open_loop = open_loop

    def sent(self, due: Sequence[float], now: float) -> None:
        """Count requests that are sent now, by the times they were due (in order)."""
        self.tick.sent += len(due)
        measured = self._measured(due)
        self.totals.sent += len(measured)
        if self._open_loop:
            self.totals.delays.add([now - time for time in measured])

    def not_sent(self, due: Sequence[float]) -> None:
        """Count requests that will not be sent."""
        self.totals.not_sent += len(self._measured(due))

    def take(self, checker: Checker, now: float) -> None:
        """Count what `checker` has found, and empty its lists."""
        totals = self.totals
        if firsts := checker.firsts:
            totals.firsts.add([now - due for due in self._measured(firsts)])
            firsts.clear()
        if ends := checker.ends:
            latencies = [now - due for due in ends]
            self.tick.done += len(ends)
            self.tick.latencies.add(latencies)
            measured = self._measured(ends)
            totals.done += len(measured)
            if len(measured) != len(ends):
                latencies = [now - due for due in measured]
            totals.dones.add(latencies)
            if self.start <= now < self.stop:
                totals.ended += len(ends)
            ends.clear()
        if failures := checker.failures:
            self.tick.failed += len(failures)
            totals.failed += len(self._measured([due for due, _ in failures]))
            totals.errors.update([code for _, code in failures])
            failures.clear()
        if complaints := checker.complaints:
            totals.errors.update(complaints)
            complaints.clear()
        totals.checked += checker.checked
        checker.checked = 0

    def violated(self, who: str, kind: Kind, text: str) -> None:
        """Count a violation."""
        self.totals.violations[kind.value] += 1
        if len(self.totals.examples) < EXAMPLES_MAX:
            self.totals.examples.append(f"{kind.value}: {who}: {text}"[:EXAMPLE_CHARACTERS_MAX])

    def _measured(self, due: Sequence[float]) -> Sequence[float]:
        """Return those that were due in the measured time; `due` is in order."""
        start, stop = self.start, self.stop
        if not due or (start <= due[0] and due[-1] < stop):
            return due
        return [time for time in due if start <= time < stop]
