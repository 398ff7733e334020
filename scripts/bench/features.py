"""What each feature costs: the server without it against the whole server.

    for each feature: the whole server, the server without it      at 50 connections x 16

A ratio of 1.10 says that without the feature there are 10 % more requests per second. What is
switched off, and which guarantee that breaks, is in variant_server.py; the server itself has no
such options. Replies are checked as everywhere. Always on fresh SQLite files: a journal that the
command line names is nothing to break guarantees on.
"""

from collections import defaultdict
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from .context import Context, Run
from .scenario import NotMeasured, Outcome
from .scoreboard import Figure
from .servers import Server, queue_server
from .stats import Spread
from .tables import aligned
from .throughput import TARGET_POINT, limited, run_cells, run_json
from .variant_server import DONE, JOURNAL, METRICS, PARTS, REQUEST_LOG, RESULTS

VARIANT_SERVER: Final = Path(__file__).with_name("variant_server.py")


class Feature(NamedTuple):
    """`off` are the parts of variant_server.py that the server runs without.

    `without` and `whole` say on the scoreboard what the two servers do.
    """

    key: str
    without: str
    whole: str
    off: Sequence[str]


FEATURES: Final = (
    Feature("journal", "without the journal's write and fsync", "with them", [JOURNAL]),
    Feature("results", "without results in the journal", "with them", [RESULTS]),
    Feature("done", "with `done` before its commit", "after it", [DONE]),
    Feature("request_log", "without the request log", "with it", [REQUEST_LOG]),
    Feature("metrics", "without metrics", "with them", [METRICS]),
    Feature("everything", "without all of these", "with them", PARTS),
)
_WHOLE: Final = "the whole server before it"
_HEAD: Final = (
    "server", "per second", "p50 ms", "p99 ms", "us CPU each", "cpu", "load cpu",
    "without / whole (min-max)",
)  # fmt: skip


class Features:
    """See scenario.Scenario. Each feature has its own runs of the whole server."""

    def __init__(self, context: Context, features: Sequence[Feature] = FEATURES) -> None:
        self._context = context
        self._features = features
        self._whole: dict[str, list[Run]] = defaultdict(list)
        self._without: dict[str, list[Run]] = defaultdict(list)

    def repeat(self) -> None:
        if self._context.connections_max < TARGET_POINT.connections:
            raise NotMeasured("too few open files are allowed")
        for feature in self._features:
            self._whole[feature.key].append(self._measure([]))
            self._without[feature.key].append(self._measure(feature.off))

    def _measure(self, off: Sequence[str]) -> Run:
        connections, window = TARGET_POINT
        context = self._context
        with (
            context.fresh_sqlite() as journal,
            variant_server(context, off, journal) as server,
        ):
            return context.measure(server, context.queue_dialects(connections), window)

    def outcome(self) -> Outcome:
        figures = [self._figure(feature) for feature in self._features]
        lines = [line for feature in self._features for line in self._lines(feature)]
        data = {
            feature.key: {
                "off": list(feature.off),
                "ratio": self._ratio(feature)._asdict(),
                "whole": run_json(self._whole[feature.key]),
                "without": run_json(self._without[feature.key]),
            }
            for feature in self._features
        }
        return Outcome(figures, aligned(_HEAD, lines), {"features": data})

    def _ratio(self, feature: Feature) -> Spread:
        return Spread.of_ratios(
            _rates(self._without[feature.key]), _rates(self._whole[feature.key])
        )

    def _figure(self, feature: Feature) -> Figure:
        whole, without = self._whole[feature.key], self._without[feature.key]
        # CPU is steadier than the rates are when something else runs here.
        notes = [f"CPU each {_cpu(without)}, not {_cpu(whole)}", limited(whole, without)]
        return Figure(
            f"requests/s at {TARGET_POINT} {feature.without}",
            f"{median(_rates(without)):,.0f}",
            f"{feature.whole} {median(_rates(whole)):,.0f}",
            self._ratio(feature),
            note="; ".join(filter(None, notes)),
        )

    def _lines(self, feature: Feature) -> list[tuple[str, ...]]:
        without = run_cells(self._without[feature.key])
        return [
            (_WHOLE, *run_cells(self._whole[feature.key]), ""),
            (feature.without, *without, str(self._ratio(feature))),
        ]


def _cpu(runs: Sequence[Run]) -> str:
    return f"{median(run.cpu_per_request for run in runs) * 1e6:.1f} us"


def _rates(runs: Sequence[Run]) -> list[float]:
    return [run.measurement.rate for run in runs]


@contextmanager
def variant_server(context: Context, off: Sequence[str], journal: str) -> Generator[Server]:
    """Run our server on the journal at that URL, without the parts `off`."""
    # -P: the modules beside the script are not to be taken for libraries of the same names.
    command = ["-P", str(VARIANT_SERVER), *off]
    settings = {"journal": journal}
    with queue_server(
        context.directory, context.server_core, context.secret, settings, command=command
    ) as server:
        yield server
