"""What a check found, in words and numbers."""

from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from msgspec import Struct, to_builtins
from msgspec.json import encode

from .checker import Checker, Violation
from .history import Durable, Event, Recv, Send, read
from .rules import RULES

BEFORE: Final = 25
"""So many events of the session are shown before the one that broke the rule,"""
AFTER: Final = 8
"""so many after it,"""
OF_THE_REQUEST: Final = 40
"""and so many of the request, however long before."""
LINE_LENGTH_MAX: Final = 400


class Report(Struct, frozen=True):
    """What was looked at: counts of what there was, checks by rule, the first violation."""

    counts: dict[str, int]
    checks: dict[str, int]
    violation: Violation | None
    explanation: str


def check_directory(directory: Path) -> Report:
    """Check the history in `directory`. Raises HistoryError, and OSError."""
    checker = Checker()
    for event in read(directory):
        if checker.feed(event) is not None:
            break
    counts = {"events": checker.world.number, **checker.world.counts}
    violation = checker.violation
    explanation = "" if violation is None else explain(read(directory), violation)
    return Report(counts, checker.world.checks, violation, explanation)


def explain(events: Iterable[Event], violation: Violation) -> str:
    """Return `violation` as a text, with the events around it from the same history."""
    near: deque[tuple[int, Event]] = deque(maxlen=BEFORE)
    about: deque[tuple[int, Event]] = deque(maxlen=OF_THE_REQUEST)
    after: list[tuple[int, Event]] = []
    for number, event in enumerate(events, start=1):
        if number > violation.number and len(after) == AFTER:
            break
        if number <= violation.number and _is_about(event, violation):
            about.append((number, event))
        elif _is_near(event, violation) or number == violation.number:
            if number <= violation.number:
                near.append((number, event))
            else:
                after.append((number, event))
    shown = sorted(dict([*near, *about, *after]).items())
    what = f"session {violation.session}, n {violation.n}, id {violation.request_id}"
    lines = [
        f"{violation.rule} is broken: {RULES[violation.rule]}",
        violation.text,
        f"{what}, event {violation.number}",
        "",
    ]
    for number, event in shown:
        mark = ">" if number == violation.number else " "
        lines.append(f"{mark}{number:>8} {_line(event, violation)}"[:LINE_LENGTH_MAX])
    return "\n".join(lines)


def _is_near(event: Event, violation: Violation) -> bool:
    conn = getattr(event, "conn", None)
    session = getattr(event, "session", None)
    if conn is not None:
        return conn in violation.conns
    return session is None or session == violation.session


def _is_about(event: Event, violation: Violation) -> bool:
    if violation.n is None or not _is_near(event, violation):
        return False
    if getattr(event, "n", None) == violation.n:
        return True
    if not isinstance(event, Send | Recv) or isinstance(event.frame, str):
        return False
    return violation.request_id is not None and event.frame.get("id") == violation.request_id


def _line(event: Event, violation: Violation) -> str:
    line: dict[str, Any] = to_builtins(event)
    line.pop("session", None)
    line.pop("client", None)
    t = line.pop("t")
    if isinstance(event, Durable):
        said = event.sessions.get(violation.session or "")
        line["sessions"] = None if said is None else to_builtins(said)
    return f"{t:.6f} {encode(line).decode()}"


def summary(report: Report) -> str:
    """Return the counts of a report as a text."""
    lines = [f"{count:>10,} {name}" for name, count in report.counts.items()]
    guarantees = sorted({rule[:-1] for rule in report.checks})
    lines += [
        f"{sum(c for rule, c in report.checks.items() if rule[:-1] == name):>10,} checks of {name}"
        for name in guarantees
    ]
    return "\n".join(lines)
