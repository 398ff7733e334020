"""A storm of connections: sessions made per second, against bare handshakes per second.

    N connections, so many at a time: connect -> handshake -> (hello with a token -> welcome)

A connection of ours counts when its `welcome` has come, one of the bare server when the
handshake is over. All stay open until the last has come.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import Final

import uvloop

from .context import Context
from .dialects import Dialect
from .load import Crowd
from .scenario import Outcome
from .scoreboard import Figure
from .servers import Server, on_core
from .stats import Spread
from .tables import aligned

ECHO: Final = "echo on uvloop"
OURS: Final = "ours"
BUSY_LOAD_CPU: Final = 0.9
_HEAD: Final = ("at a time", "server", "per second (min-max)", "load cpu")


class Storm:
    """See scenario.Scenario."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._count = min(context.sizes.storm_connections, context.connections_max)
        self._rates: dict[tuple[int, str], list[float]] = defaultdict(list)
        self._load_cpu: dict[tuple[int, str], list[float]] = defaultdict(list)

    def repeat(self) -> None:
        context = self._context
        for at_a_time in context.sizes.storm_at_a_time:
            with context.echo() as server:
                self._measure(server, at_a_time, ECHO, context.echo_dialects(self._count))
            with context.ours(connections=self._count) as server:
                self._measure(server, at_a_time, OURS, context.queue_dialects(self._count))

    def _measure(
        self, server: Server, at_a_time: int, name: str, dialects: Sequence[Dialect]
    ) -> None:
        with on_core(self._context.load_core):
            seconds, cpu_seconds = uvloop.run(_storm(server.url, dialects, at_a_time))
        self._rates[at_a_time, name].append(len(dialects) / seconds)
        self._load_cpu[at_a_time, name].append(cpu_seconds / seconds)

    def outcome(self) -> Outcome:
        every = self._context.sizes.storm_at_a_time
        lines = [
            (
                str(at_a_time) if name == ECHO else "",
                name,
                f"{Spread.of(self._rates[at_a_time, name]):,.0f}",
                f"{median(self._load_cpu[at_a_time, name]):.0%}",
            )
            for at_a_time in every
            for name in (ECHO, OURS)
        ]
        data = {
            "connections": self._count,
            "storms": [
                {
                    "at_a_time": at_a_time,
                    "echo_rate": median(self._rates[at_a_time, ECHO]),
                    "ours_rate": median(self._rates[at_a_time, OURS]),
                }
                for at_a_time in every
            ],
        }
        figures = [self._figure(at_a_time) for at_a_time in every]
        return Outcome(figures, aligned(_HEAD, lines, left=2), data)

    def _figure(self, at_a_time: int) -> Figure:
        ours = self._rates[at_a_time, OURS]
        echo = self._rates[at_a_time, ECHO]
        busy = any(median(self._load_cpu[at_a_time, name]) > BUSY_LOAD_CPU for name in (ECHO, OURS))
        return Figure(
            f"new sessions/s, {self._count:,} connections, {at_a_time} at a time",
            f"{median(ours):,.0f}",
            f"bare handshakes {median(echo):,.0f}",
            Spread.of_ratios(ours, echo),
            note="limited by the load generator" if busy else "",
        )


async def _storm(url: str, dialects: Sequence[Dialect], at_a_time: int) -> tuple[float, float]:
    """Return the seconds until the last is ready, and the CPU seconds of this process."""
    crowd = Crowd(url)
    try:
        cpu_seconds = -time.process_time()
        seconds = -time.perf_counter()
        await crowd.connect(dialects, window=1, at_a_time=at_a_time)
        return seconds + time.perf_counter(), cpu_seconds + time.process_time()
    finally:
        crowd.abort()
