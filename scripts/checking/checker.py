"""The checker: events in, the first violation out. (Skeleton: the rules come next.)"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .history import Event, read


@dataclass(frozen=True)
class Violation:
    """The first thing that must not be: rule, what happened, and where in the merged history."""

    rule: str
    text: str
    number: int
    event: Event
    session: str | None = None
    n: int | None = None


@dataclass(frozen=True)
class Report:
    """What was checked: counts by name, checks by rule, and the violation with its context."""

    counts: dict[str, int]
    checks: dict[str, int]
    violation: Violation | None
    explanation: str


class Checker:
    """Takes the events of a history in order of time."""

    def __init__(self) -> None:
        self.violation: Violation | None = None

    def feed(self, event: Event) -> Violation | None:
        """Take one event; return the violation, once there is one."""
        return self.violation

    def finish(self) -> Violation | None:
        """Say that nothing follows; return the violation, if there is one."""
        return self.violation


def check(events: Iterable[Event]) -> Violation | None:
    """Return the first violation in `events`, which are in order of time."""
    checker = Checker()
    for event in events:
        if checker.feed(event) is not None:
            break
    return checker.finish()


def check_directory(directory: Path) -> Report:
    """Check the history in `directory`. Raises HistoryError."""
    return Report({}, {}, check(read(directory)), "")
