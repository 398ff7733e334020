"""What a scenario is: it measures ours and what ours is compared with, again and again.

    scenario = SomeScenario(context)
    for _ in range(repeat):
        scenario.repeat()           # ours and the other, one right after the other
    outcome = scenario.outcome()    # medians: lines for the scoreboard, a table, JSON

A new scenario is a class like that in a file of its own, and a line in benchmark.py.
"""

from typing import Any, NamedTuple, Protocol

from .scoreboard import Figure


class NotMeasured(Exception):
    """Something that this needs is not there; the text says what, for the scoreboard."""


class Outcome(NamedTuple):
    """What came out: lines for the scoreboard, the details as text and as a JSON value."""

    figures: list[Figure]
    text: str
    data: dict[str, Any]


class Scenario(Protocol):
    """See the first lines. Times are in seconds throughout."""

    def repeat(self) -> None:
        """Measure everything once more. Raises NotMeasured when that is not possible here."""
        ...

    def outcome(self) -> Outcome:
        """Sum up all repetitions, of which there is one at least."""
        ...
