"""What befalls the server, drawn from the seed: one fault after the other.

A fault ends one life of the server (most do) or troubles it: `Plan` says what comes next, and
driver.py does it.
"""

from collections.abc import Iterator, Mapping
from random import Random
from typing import Final, Literal, NamedTuple

from .trigger import Trigger

Kind = Literal["kill", "early", "trigger", "term", "pause", "database", "both"]
"""SIGKILL under load; while it starts; in the middle of something; SIGTERM; SIGSTOP until another
server has tried to take over; SIGKILL of the database; of both at once."""

SQLITE: Final[Mapping[Kind, float]] = {
    "kill": 45,
    "early": 12,
    "trigger": 36,
    "term": 4,
    "pause": 3,
}
MONGODB: Final[Mapping[Kind, float]] = {**SQLITE, "pause": 10, "database": 8, "both": 8}

KILLS: Final[frozenset[Kind]] = frozenset({"kill", "early", "trigger", "both"})
"""The kinds that end the server with SIGKILL."""

AT_START: Final[frozenset[Kind]] = frozenset({"early", "trigger"})
"""The kinds that need a server that starts."""

LIFE_SECONDS: Final = 0.25
"""A server lives for this long on average, once it listens."""
STARTING_SECONDS: Final = 0.6
"""Starting, with recovery, takes about so long."""
TRIGGER_SECONDS: Final = 1.2
"""A trigger that was not reached by then: the server is killed all the same."""

# How often which moment; and up to which call of it.
_POINTS: Final = (
    (10, "append", 60),
    (4, "append", 4),  # during recovery
    (5, "committed", 120),
    (6, "send", 200),
    (2, "seal", 1),
    (4, "project", 6),
    (4, "trim", 4),
    (3, "forget", 1),
)
_PHASES: Final = ("before", "during", "after")
_DURING_SECONDS: Final = 0.0015
"""Longer than most appends take."""


class Fault(NamedTuple):
    """What happens next: `seconds` is when (after the server listens; for `early`: was spawned)."""

    kind: Kind
    seconds: float
    trigger: Trigger | None = None


class Plan:
    """An endless sequence of faults of the `kinds` (with weights); the dice decide."""

    def __init__(self, kinds: Mapping[Kind, float], dice: Random, pace: float) -> None:
        self._kinds = kinds
        self._dice = dice
        self._pace = pace

    def __iter__(self) -> Iterator[Fault]:
        dice = self._dice
        kinds, weights = list(self._kinds), list(self._kinds.values())
        while True:
            kind = dice.choices(kinds, weights)[0]
            if kind == "early":
                yield Fault(kind, dice.uniform(0, STARTING_SECONDS))
            elif kind == "trigger":
                yield Fault(kind, TRIGGER_SECONDS, self._trigger())
            else:
                yield Fault(kind, min(dice.expovariate(1 / self._pace), 6 * self._pace))

    def _trigger(self) -> Trigger:
        dice = self._dice
        weights = [weight for weight, _, _ in _POINTS]
        _, point, most = dice.choices(_POINTS, weights)[0]
        call = 1 + int(most * dice.random() ** 2)
        return Trigger(point, dice.choice(_PHASES), call, dice.uniform(0, _DURING_SECONDS))  # type: ignore[arg-type]
