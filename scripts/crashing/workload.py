"""What clients ask for, and how they behave: drawn from the seed."""

from dataclasses import dataclass
from random import Random
from typing import Any, Final

PIECE_BYTES: Final = 40_000
"""Items of the long streams, which the server's journal holds in several pieces."""


@dataclass(frozen=True)
class Mix:
    """How often what is asked for (weights), and what else clients do (chances per message).

    `pause_seconds` is the most a client waits between two messages; `abort` is a connection cut
    off, in all states; after that it stays away for `away_seconds` at most. `lazy` is the share of
    clients that acknowledge late.
    """

    methods: dict[str, float]
    pause_seconds: float = 0.15
    batch: int = 6
    repeat: float = 0.04
    conflict: float = 0.01
    cancel: float = 0.05
    refresh: float = 0.02
    abort: float = 0.012
    away_seconds: float = 0.3
    take_over: float = 0.006
    bye: float = 0.004
    lazy: float = 0.5
    on_disconnect: float = 0.1


EVERYTHING: Final = Mix(
    {
        "quick": 30,
        "pause": 22,
        "stream": 12,
        "pieces": 1.5,
        "live": 4,
        "thread": 8,
        "process": 0.15,
        "once": 6,
        "unstarted": 6,
        "limited": 5,
        "refuse": 4,
        "broken": 1,
        "late": 3,
    }
)


@dataclass
class Ask:
    """One request as its client sees it.

    `sent`: it need not be sent (again). `cancelled` is the number of the connection on which its
    cancellation was last asked for.
    """

    id: str
    frame: dict[str, Any]
    sent: bool = False
    accepted: bool = False
    ended: bool = False
    cancelled: int = 0
    to_be_cancelled: bool = False

    def conflicting(self) -> dict[str, Any]:
        """Return a request of the same id with other params."""
        params = self.frame["params"]
        return {**self.frame, "params": {**params, "tag": params["tag"] + 1}}


class Asking:
    """Makes requests; ids are unique in the run."""

    def __init__(self, prefix: str, mix: Mix, dice: Random) -> None:
        self._prefix = prefix
        self._mix = mix
        self._dice = dice
        self._count = 0
        self._kinds = list(mix.methods)
        self._weights = list(mix.methods.values())

    def next(self) -> Ask:
        """Return a new request."""
        dice = self._dice
        self._count += 1
        request_id = f"{self._prefix}-{self._count}"
        kind = dice.choices(self._kinds, self._weights)[0]
        method, params, options = _KINDS[kind](dice)
        params = {"tag": 2 * self._count, **params}
        frame = {"type": "request", "id": request_id, "method": method, "params": params}
        if method == "pause" and dice.random() < self._mix.on_disconnect:
            options = {**options, "on_disconnect": "cancel"}
        return Ask(request_id, {**frame, **options})


def _ms(dice: Random, most: float) -> dict[str, Any]:
    return {"ms": round(dice.random() ** 2 * most, 2)}


def _stream(dice: Random) -> dict[str, Any]:
    return {**_ms(dice, 6), "count": dice.randint(0, 12), "size": dice.choice((0, 100, 1000))}


def _pieces(dice: Random) -> dict[str, Any]:
    return {**_ms(dice, 2), "count": dice.randint(6, 20), "size": PIECE_BYTES}


_KINDS: Final = {
    "quick": lambda _: ("quick", {}, {}),
    "pause": lambda dice: ("pause", _ms(dice, 40), {}),
    "long": lambda dice: ("pause", {"ms": dice.randint(100, 300)}, {}),
    "stream": lambda dice: ("stream", _stream(dice), {}),
    "live": lambda dice: ("live", _stream(dice), {}),
    "pieces": lambda dice: ("stream", _pieces(dice), {}),
    "slow_pieces": lambda _: ("stream", {"ms": 12, "count": 16, "size": PIECE_BYTES}, {}),
    "thread": lambda dice: ("thread", _ms(dice, 20), {}),
    "process": lambda dice: (
        "process",
        {**_ms(dice, 10), "die": dice.random() < 0.3},
        {},
    ),
    "once": lambda dice: ("once", _ms(dice, 20), {}),
    "unstarted": lambda dice: ("unstarted", _ms(dice, 20), {}),
    "limited": lambda dice: ("limited", _ms(dice, 40), {}),
    "refuse": lambda dice: ("refuse", _ms(dice, 10), {}),
    "broken": lambda dice: ("broken", _ms(dice, 10), {}),
    "late": lambda dice: ("pause", {"ms": 5000}, {"timeout": round(dice.uniform(0.01, 0.1), 3)}),
}
