"""Requests per second and their latency, in a closed loop, against a bare echo server.

    for each point (connections x window): echo on uvloop, echo on asyncio, ours

Ours journals every request with fsync, stores its result and counts it when `done` has come; the
echo servers store nothing. The target is held against the one on uvloop, the loop that ours has;
latencies are from the request to its echo, and to `done`.
"""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median
from typing import Any, Final

from .context import Context, Run
from .load import Point
from .scenario import Outcome
from .scoreboard import Figure, Target
from .stats import Spread
from .tables import aligned

TARGET_POINT: Final = Point(50, 16)
TARGET: Final = Target(1.5, at_least=True)
TARGET_LOOP: Final = "uvloop"
MANY_CONNECTIONS: Final = 1000
MANY_TARGET: Final = Target(0.5, at_least=True)
BUSY_LOAD_CPU: Final = 0.9
"""Above this the load generator, not the server, sets the pace."""
OURS: Final = "ours"
_HEAD: Final = (
    "point", "server", "per second", "p50 ms", "p99 ms", "us CPU each", "cpu", "load cpu",
    "ours / this (min-max)",
)  # fmt: skip


class Throughput:
    """See scenario.Scenario."""

    def __init__(self, context: Context) -> None:
        points = context.sizes.points
        most = context.connections_max
        self._context = context
        self._loops = context.sizes.echo_loops
        self._points = [point for point in points if point.connections <= most]
        self._missed = [point for point in points if point.connections > most]
        self._runs: dict[tuple[Point, str], list[Run]] = defaultdict(list)

    def repeat(self) -> None:
        context = self._context
        with ExitStack() as stack:
            echoes = {loop: stack.enter_context(context.echo(loop)) for loop in self._loops}
            for point in self._points:
                for loop, echo in echoes.items():
                    dialects = context.echo_dialects(point.connections)
                    run = context.measure(echo, dialects, point.window)
                    self._runs[point, loop].append(run)
                self._runs[point, OURS].append(self._run_ours(point))

    def _run_ours(self, point: Point) -> Run:
        with self._context.ours(connections=point.connections, window=point.window) as server:
            dialects = self._context.queue_dialects(point.connections)
            return self._context.measure(server, dialects, point.window)

    def outcome(self) -> Outcome:
        points = self._points
        figures = [self._figure(point, self._loops[0]) for point in points]
        if TARGET_POINT in points:
            # The other loops differ little; at all points they are in the table.
            figures += [self._figure(TARGET_POINT, loop) for loop in self._loops[1:]]
        figures += [*self._many(), *map(_missed, self._missed)]
        lines = [self._line(point, server) for point in points for server in self._servers]
        data = {"points": [self._as_json(point) for point in points]}
        return Outcome(figures, aligned(_HEAD, lines, left=2), data)

    @property
    def _servers(self) -> tuple[str, ...]:
        return (*self._loops, OURS)

    def _ratio(self, point: Point, server: str) -> Spread:
        return Spread.of_ratios(self._rates(point, OURS), self._rates(point, server))

    def _rates(self, point: Point, server: str) -> list[float]:
        return [run.measurement.rate for run in self._runs[point, server]]

    def _figure(self, point: Point, loop: str) -> Figure:
        official = point == TARGET_POINT and loop == TARGET_LOOP
        return Figure(
            f"requests/s at {point}",
            f"{median(self._rates(point, OURS)):,.0f}",
            f"echo on {loop} {median(self._rates(point, loop)):,.0f}",
            self._ratio(point, loop),
            TARGET if official else None,
            limited(self._runs[point, loop], self._runs[point, OURS]),
        )

    def _many(self) -> list[Figure]:
        """Compare the points with very many connections with that of the target."""
        if TARGET_POINT not in self._points:
            return []
        few = self._rates(TARGET_POINT, OURS)
        return [
            Figure(
                f"requests/s at {point}",
                f"{median(self._rates(point, OURS)):,.0f}",
                f"ours at {TARGET_POINT} {median(few):,.0f}",
                Spread.of_ratios(self._rates(point, OURS), few),
                MANY_TARGET,
            )
            for point in self._points
            if point.connections == MANY_CONNECTIONS
        ]

    def _line(self, point: Point, server: str) -> tuple[str, ...]:
        runs = self._runs[point, server]
        first = server == self._servers[0]
        return (
            str(point) if first else "",
            server if server == OURS else f"echo on {server}",
            *run_cells(runs),
            "" if server == OURS else str(self._ratio(point, server)),
        )

    def _as_json(self, point: Point) -> dict[str, Any]:
        return {
            "connections": point.connections,
            "window": point.window,
            "limited_by_load": any(limited(self._runs[point, server]) for server in self._servers),
            "ratios": {loop: self._ratio(point, loop)._asdict() for loop in self._loops},
            "servers": {server: run_json(self._runs[point, server]) for server in self._servers},
        }


def _missed(point: Point) -> Figure:
    return Figure(f"requests/s at {point}", note="too few open files are allowed")


def limited(*runs: Sequence[Run]) -> str:
    """Say so when a faster load generator might have shown other numbers; empty if not."""
    busy = any(median(run.measurement.load_cpu for run in some) > BUSY_LOAD_CPU for some in runs)
    return "limited by the load generator" if busy else ""


def run_cells(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return rate, p50, p99, CPU for each request, CPU of the server and of the load."""
    return (
        f"{median(run.measurement.rate for run in runs):,.0f}",
        f"{median(run.measurement.p50_seconds for run in runs) * 1000:.2f}",
        f"{median(run.measurement.p99_seconds for run in runs) * 1000:.2f}",
        f"{median(run.cpu_per_request for run in runs) * 1e6:.1f}",
        f"{median(run.server_cpu for run in runs):.0%}",
        f"{median(run.measurement.load_cpu for run in runs):.0%}",
    )


def run_json(runs: Sequence[Run]) -> dict[str, float]:
    """Return the medians of the same as a JSON value."""
    return {
        "rate": median(run.measurement.rate for run in runs),
        "p50_seconds": median(run.measurement.p50_seconds for run in runs),
        "p99_seconds": median(run.measurement.p99_seconds for run in runs),
        "cpu_per_request_seconds": median(run.cpu_per_request for run in runs),
        "server_cpu": median(run.server_cpu for run in runs),
        "load_cpu": median(run.measurement.load_cpu for run in runs),
    }
