"""From single runs to the table, the targets and the JSON."""

from collections.abc import Sequence
from statistics import median
from typing import Any, Final, NamedTuple

from .load import Measurement, Point

BUSY_LOAD_CPU: Final = 0.9
"""Above this the load generator, not the server, sets the pace."""
THROUGHPUT_POINT: Final = Point(50, 16)
THROUGHPUT_RATIO_MIN: Final = 1.5
ROUND_TRIP_POINT: Final = Point(1, 1)
ROUND_TRIP_SYNCS_MAX: Final = 1.5
CONNECTIONS_MANY: Final = 1000
CONNECTIONS_FEW: Final = 50
MANY_RATIO_MIN: Final = 0.5


class Run(NamedTuple):
    """One measurement of one server; `server_cpu_seconds` was used while it was measured."""

    measurement: Measurement
    server_cpu_seconds: float

    @property
    def server_cpu(self) -> float:
        """The share of its core that the server used."""
        return self.server_cpu_seconds / self.measurement.seconds

    @property
    def cpu_per_request(self) -> float:
        """Seconds of CPU that the server used for one request."""
        return self.server_cpu_seconds / self.measurement.requests


class Side(NamedTuple):
    """The medians of one server's runs at one point."""

    rate: float
    p50_seconds: float
    p99_seconds: float
    load_cpu: float
    server_cpu: float
    cpu_per_request_seconds: float

    @classmethod
    def of(cls, runs: Sequence[Run]) -> "Side":
        return cls(
            median(run.measurement.rate for run in runs),
            median(run.measurement.p50_seconds for run in runs),
            median(run.measurement.p99_seconds for run in runs),
            median(run.measurement.load_cpu for run in runs),
            median(run.server_cpu for run in runs),
            median(run.cpu_per_request for run in runs),
        )


class Row(NamedTuple):
    """One point: both servers, and the ratio of their rates, pair by pair."""

    point: Point
    echo: Side
    ours: Side
    ratio: float
    ratio_min: float
    ratio_max: float

    @classmethod
    def of(cls, point: Point, pairs: Sequence[tuple[Run, Run]]) -> "Row":
        """Sum up runs of (echo, ours) that were made one after the other."""
        # Pair by pair, because what else the machine does changes more slowly than that.
        ratios = [ours.measurement.rate / echo.measurement.rate for echo, ours in pairs]
        return cls(
            point,
            Side.of([echo for echo, _ in pairs]),
            Side.of([ours for _, ours in pairs]),
            median(ratios),
            min(ratios),
            max(ratios),
        )

    @property
    def limited_by_load(self) -> bool:
        """Tell whether a faster load generator might have shown other numbers."""
        return max(self.echo.load_cpu, self.ours.load_cpu) > BUSY_LOAD_CPU


class Target(NamedTuple):
    """A number of docs the server is held to, and what was measured."""

    name: str
    wanted: str
    measured: str
    met: bool


def targets(rows: Sequence[Row], fdatasync_seconds: float) -> list[Target]:
    """Return the targets that the measured points say something about."""
    by_point = {row.point: row for row in rows}
    found: list[Target] = []
    row = by_point.get(THROUGHPUT_POINT)
    if row is not None:
        found.append(
            Target(
                f"requests/s against echo at {row.point}",
                f">= {THROUGHPUT_RATIO_MIN:.2f}",
                f"{row.ratio:.2f}",
                row.ratio >= THROUGHPUT_RATIO_MIN,
            )
        )
    row = by_point.get(ROUND_TRIP_POINT)
    if row is not None:
        limit = row.echo.p50_seconds + ROUND_TRIP_SYNCS_MAX * fdatasync_seconds
        syncs = (row.ours.p50_seconds - row.echo.p50_seconds) / fdatasync_seconds
        found.append(
            Target(
                f"round trip at {row.point}: echo + {ROUND_TRIP_SYNCS_MAX:g} fdatasync",
                f"<= {_ms(limit)} ms",
                f"{_ms(row.ours.p50_seconds)} ms (echo + {syncs:.1f} fdatasync)",
                row.ours.p50_seconds <= limit,
            )
        )
    few = [row for row in rows if row.point.connections == CONNECTIONS_FEW]
    for row in rows:
        if row.point.connections == CONNECTIONS_MANY and few:
            best = max(few, key=lambda one: one.ours.rate)
            share = row.ours.rate / best.ours.rate
            found.append(
                Target(
                    f"requests/s at {row.point} against {best.point}",
                    f">= {MANY_RATIO_MIN:.2f}",
                    f"{share:.2f}",
                    share >= MANY_RATIO_MIN,
                )
            )
    return found


_COLUMNS: Final = (
    "point", "ratio", "(min-max)",
    "echo/s", "p50 ms", "p99 ms", "us/req", "cpu",
    "ours/s", "p50 ms", "p99 ms", "us/req", "cpu",
    "load cpu",
)  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text; `us/req` is the server's CPU time for one request."""
    lines = [_COLUMNS, *map(_cells, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_COLUMNS))]
    text = [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    ]
    text.insert(1, "-" * len(text[0]))
    for index, row in enumerate(rows):
        if row.limited_by_load:
            text[index + 2] += "  <- limited by the load generator"
    return "\n".join(text)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        str(row.point),
        f"{row.ratio:.2f}",
        f"({row.ratio_min:.2f}-{row.ratio_max:.2f})",
        *_side(row.echo),
        *_side(row.ours),
        f"{row.echo.load_cpu:.0%}/{row.ours.load_cpu:.0%}",
    )


def _side(side: Side) -> tuple[str, ...]:
    return (
        f"{side.rate:.0f}",
        _ms(side.p50_seconds),
        _ms(side.p99_seconds),
        f"{side.cpu_per_request_seconds * 1e6:.1f}",
        f"{side.server_cpu:.0%}",
    )


def targets_table(found: Sequence[Target]) -> str:
    """Return the targets as text."""
    lines = [
        f"{'met' if target.met else 'MISSED':>8}  {target.name}: "
        f"wanted {target.wanted}, measured {target.measured}"
        for target in found
    ]
    return "\n".join(lines)


def as_json(rows: Sequence[Row], found: Sequence[Target]) -> dict[str, Any]:
    """Return what the tables say as a JSON value; times in seconds."""
    return {
        "points": [
            {
                "connections": row.point.connections,
                "window": row.point.window,
                "ratio": row.ratio,
                "ratio_min": row.ratio_min,
                "ratio_max": row.ratio_max,
                "echo": row.echo._asdict(),
                "ours": row.ours._asdict(),
                "limited_by_load": row.limited_by_load,
            }
            for row in rows
        ],
        "targets": [target._asdict() for target in found],
    }


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f}"
