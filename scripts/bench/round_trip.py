"""One connection, one request at a time: what durability costs, counted in fdatasyncs.

    disk, echo, ours, disk        ours = echo + k fdatasync

Twice: until the first result has come, and until `done`, when outcome and result are durable.
"""

from statistics import mean, median
from typing import Final, NamedTuple

from .context import Context
from .disk import Syncs
from .load import Point
from .scenario import Outcome
from .scoreboard import Figure, Target
from .stats import Spread
from .tables import aligned

POINT: Final = Point(1, 1)
SYNCS_MAX: Final = 1.5
TARGET: Final = Target(1.0, at_least=False)


class _Repetition(NamedTuple):
    sync: Syncs
    echo_seconds: float
    result_seconds: float
    done_seconds: float

    @property
    def limit_seconds(self) -> float:
        return self.echo_seconds + SYNCS_MAX * self.sync.overwrite_seconds

    def syncs(self, seconds: float, sync_seconds: float) -> float:
        """Return how many fdatasyncs ours is slower than the echo."""
        return (seconds - self.echo_seconds) / sync_seconds


class RoundTrip:
    """See scenario.Scenario. All times are medians (p50) of many round trips."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._repetitions: list[_Repetition] = []

    def repeat(self) -> None:
        context = self._context
        before = context.disk()
        with context.echo() as server:
            echo = context.measure(server, context.echo_dialects(1), POINT.window).measurement
        with context.ours() as server:
            ours = context.measure(server, context.queue_dialects(1), POINT.window).measurement
        after = context.disk()
        sync = Syncs(*map(mean, zip(before, after, strict=True)))
        self._repetitions.append(
            _Repetition(sync, echo.p50_seconds, ours.first_p50_seconds, ours.p50_seconds)
        )

    def outcome(self) -> Outcome:
        every = self._repetitions
        echo = median(one.echo_seconds for one in every)
        rows = [
            ("request to `result`", [one.result_seconds for one in every]),
            ("request to `done`", [one.done_seconds for one in every]),
        ]
        lines: list[tuple[str, ...]] = [("echo on uvloop", _ms(echo), "", "")]
        for name, seconds in rows:
            pairs = list(zip(every, seconds, strict=True))
            overwrites = Spread.of(one.syncs(s, one.sync.overwrite_seconds) for one, s in pairs)
            appends = Spread.of(one.syncs(s, one.sync.append_seconds) for one, s in pairs)
            lines.append((name, _ms(median(seconds)), str(overwrites), str(appends)))
        sync = Syncs(*map(median, zip(*(one.sync for one in every), strict=True)))
        text = aligned(("p50 at 1x1", "ms", "echo + k overwrites, k", "echo + k appends, k"), lines)
        text += (
            f"\none fdatasync of 4 KiB: {_ms(sync.overwrite_seconds)} ms when it overwrites (what "
            f"counts here), {_ms(sync.append_seconds)} ms when it makes the file grow"
        )
        data = {
            "echo_p50_seconds": echo,
            "result_p50_seconds": median(rows[0][1]),
            "done_p50_seconds": median(rows[1][1]),
            "fdatasync": sync._asdict(),
        }
        return Outcome([self._figure(name, seconds) for name, seconds in rows], text, data)

    def _figure(self, name: str, seconds: list[float]) -> Figure:
        every = self._repetitions
        limits = [one.limit_seconds for one in every]
        syncs = median(
            one.syncs(s, one.sync.overwrite_seconds) for one, s in zip(every, seconds, strict=True)
        )
        return Figure(
            f"round trip at {POINT}, {name}, p50",
            f"{_ms(median(seconds))} ms",
            f"echo + {SYNCS_MAX:g} fdatasync {_ms(median(limits))} ms",
            Spread.of_ratios(seconds, limits),
            TARGET,
            f"echo + {syncs:.1f} fdatasync",
        )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3f}"
