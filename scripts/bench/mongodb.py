"""Ours on MongoDB against ours on SQLite, both under the load of the throughput's target.

    SQLite, MongoDB     at 50 connections x 16, the database beside the load

With two cores only, the database shares the core of the load: how busy it is is in the table, and
a figure that this core limits is marked.
"""

from collections.abc import Callable
from statistics import median
from typing import Final

from .context import Context, Run
from .scenario import Outcome
from .scoreboard import Figure, Target
from .stats import Spread
from .tables import aligned
from .throughput import BUSY_LOAD_CPU, TARGET_POINT, run_cells, run_json

TARGET: Final = Target(0.8, at_least=True)
_HEAD: Final = (
    "journal", "per second", "p50 ms", "p99 ms", "us CPU each", "cpu", "load cpu", "database cpu",
)  # fmt: skip


class Mongodb:
    """See scenario.Scenario."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._sqlite: list[Run] = []
        self._mongodb: list[Run] = []
        self._database_cpu: list[float] = []

    def repeat(self) -> None:
        context = self._context
        cpu: list[float] = []
        with context.mongodb() as database:
            with context.fresh_sqlite() as url:
                self._sqlite.append(self._measure(url))
            run = self._measure(database.url, lambda: cpu.append(database.cpu_seconds()))
        self._mongodb.append(run)
        self._database_cpu.append((cpu[1] - cpu[0]) / run.measurement.seconds)

    def _measure(self, journal: str, at_edges: Callable[[], None] = lambda: None) -> Run:
        connections, window = TARGET_POINT
        context = self._context
        with context.ours(connections=connections, window=window, journal=journal) as server:
            dialects = context.queue_dialects(connections)
            return context.measure(server, dialects, window, at_edges)

    def outcome(self) -> Outcome:
        sqlite = [run.measurement.rate for run in self._sqlite]
        mongodb = [run.measurement.rate for run in self._mongodb]
        database_cpu = median(self._database_cpu)
        shared = database_cpu + median(run.measurement.load_cpu for run in self._mongodb)
        figure = Figure(
            f"requests/s at {TARGET_POINT} on MongoDB",
            f"{median(mongodb):,.0f}",
            f"on SQLite {median(sqlite):,.0f}",
            Spread.of_ratios(mongodb, sqlite),
            TARGET,
            "limited by the core of load and database" if shared > BUSY_LOAD_CPU else "",
        )
        lines = [
            ("SQLite", *run_cells(self._sqlite), ""),
            ("MongoDB", *run_cells(self._mongodb), f"{database_cpu:.0%}"),
        ]
        data = {
            "sqlite": run_json(self._sqlite),
            "mongodb": run_json(self._mongodb) | {"database_cpu": database_cpu},
        }
        return Outcome([figure], aligned(_HEAD, lines), data)
