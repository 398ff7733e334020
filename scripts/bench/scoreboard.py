"""The scoreboard: one line per figure, what it is compared with, and whether the target is met.

A ratio is always ours / other, so whether more is better depends on the figure: `>=` and `<=` in
its target say so.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from .stats import Spread
from .tables import aligned, markdown


class Target(NamedTuple):
    """What the median ratio must reach (`at_least`), or must not exceed."""

    limit: float
    at_least: bool

    def met(self, ratio: Spread) -> bool:
        """Tell whether the median is on the right side."""
        return ratio.median >= self.limit if self.at_least else ratio.median <= self.limit

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:.2f}"


class Figure(NamedTuple):
    """One line. `ours` and `other` are values with their units; `other` names what it is.

    Without a `ratio` it was not measured, and `note` says why; otherwise `note` qualifies it.
    """

    name: str
    ours: str = ""
    other: str = ""
    ratio: Spread | None = None
    target: Target | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Tell whether the target is met; None when there is none, or nothing was measured."""
        if self.target is None or self.ratio is None:
            return None
        return self.target.met(self.ratio)


_HEAD: Final = ("figure", "ours", "compared with", "ratio (min-max)", "target", "")


def table(figures: Sequence[Figure]) -> str:
    """Return the scoreboard for a terminal."""
    return aligned(_HEAD, [_cells(figure) for figure in figures], left=len(_HEAD))


def as_markdown(figures: Sequence[Figure]) -> str:
    """Return the scoreboard for README."""
    return markdown(_HEAD, [_cells(figure) for figure in figures])


def as_json(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """Return the scoreboard as a JSON value."""
    return [
        {
            "name": figure.name,
            "ours": figure.ours,
            "other": figure.other,
            "ratio": None if figure.ratio is None else figure.ratio._asdict(),
            "target": None if figure.target is None else figure.target._asdict(),
            "met": figure.met,
            "note": figure.note,
        }
        for figure in figures
    ]


def _cells(figure: Figure) -> tuple[str, ...]:
    verdict = {True: "met", False: "MISSED", None: ""}[figure.met]
    if figure.ratio is None:
        verdict = "not measured"
    return (
        figure.name,
        figure.ours,
        figure.other,
        "" if figure.ratio is None else str(figure.ratio),
        "" if figure.target is None else str(figure.target),
        f"{verdict}: {figure.note}" if verdict and figure.note else verdict or figure.note,
    )
