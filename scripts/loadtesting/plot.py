"""The results as a picture: latency by percentile, throughput and latency over time."""

from collections.abc import Callable, Sequence
from itertools import groupby
from math import ceil, log10
from typing import Final

from . import report, svg
from .histogram import Histogram
from .run import Run, Second

POINTS_MAX: Final = 600
"""Of a line over time; neighbouring seconds share a point when there are more."""
NINES_MIN: Final = 2
NINES_MAX: Final = 6
"""Where the axis of percentiles ends: 99 % or, with enough requests, up to 99.9999 %."""
LATENCY_MIN_SECONDS: Final = 1e-5
"""Where the axis of latencies begins at the latest."""
BLUE: Final = "#2563eb"
ORANGE: Final = "#d97706"
RED: Final = "#dc2626"
GREY: Final = "#9ca3af"


def draw(run: Run, *, html: bool) -> str:
    """Return an SVG document, or an HTML page with it."""
    target, load = report.heading(run).split("\n")
    panels = [_percentiles(run), _throughput(run), _latencies(run)]
    picture = svg.document(f"{target}: {run.rate:,.0f} requests/s", load, panels)
    if not html:
        return picture
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"/><title>Load test</title>'
        f"</head>\n<body>\n{picture}</body>\n</html>\n"
    )


def _percentiles(run: Run) -> svg.Panel:
    """Latency against how many requests were faster; each step to the right is one nine more."""
    totals = run.totals
    nines = min(NINES_MAX, max(NINES_MIN, ceil(log10(max(totals.dones.count, 1)))))

    def place(share: float) -> float:
        return 1.0 if share >= 1 else min(1.0, -log10(1 - share) / nines)

    shares = [0.0, 0.5, *(1 - 10.0**-k for k in range(1, nines + 1))]
    axis = svg.Axis(
        "requests that were at least as fast",
        place,
        [(share, f"{100 * share:.10g} %") for share in shares],
    )
    lines = [
        svg.Line("first result", ORANGE, _curve(totals.firsts)),
        svg.Line("done", BLUE, _curve(totals.dones)),
    ]
    return svg.Panel("Latency by percentile", axis, _time_axis(lines), lines)


def _curve(histogram: Histogram) -> list[svg.Point]:
    points = list(histogram.curve())
    return [(0.0, points[0][1]), *points] if points else []


def _throughput(run: Run) -> svg.Panel:
    def line(name: str, colour: str, count: Callable[[Second], int]) -> svg.Line:
        points = [(_middle(s), count(s) / s.seconds) for s in seconds if s.seconds]
        return svg.Line(name, colour, points)

    seconds = _thinned(run.seconds)
    lines = [
        line("sent", GREY, lambda second: second.sent),
        line("done", BLUE, lambda second: second.done),
    ]
    if any(second.failed for second in seconds):
        lines.append(line("failed", RED, lambda second: second.failed))
    high = max((rate for line in lines for _, rate in line.points), default=0.0)
    axis = svg.linear("requests/s", high)
    return svg.Panel("Throughput (shaded: measured)", _elapsed(run), axis, lines, _band(run))


def _latencies(run: Run) -> svg.Panel:
    seconds = _thinned(run.seconds)
    lines: list[svg.Line] = []
    # Where nothing was done there is no latency, and no line.
    for any_done, group in groupby(seconds, key=lambda second: second.done > 0):
        if any_done:
            part = list(group)
            names = ("", "") if lines else ("p50", "p99")
            lines.append(svg.Line(names[0], BLUE, [(_middle(s), s.p50) for s in part]))
            lines.append(svg.Line(names[1], RED, [(_middle(s), s.p99) for s in part]))
    title = "Latency to done (shaded: measured)"
    return svg.Panel(title, _elapsed(run), _time_axis(lines), lines, _band(run))


def _thinned(seconds: Sequence[Second]) -> list[Second]:
    """Put neighbours together: counts are added, of latencies the highest stays."""
    size = ceil(len(seconds) / POINTS_MAX) or 1
    groups = [seconds[first : first + size] for first in range(0, len(seconds), size)]
    return [
        Second(
            at=group[-1].at,
            seconds=sum(second.seconds for second in group),
            sent=sum(second.sent for second in group),
            done=sum(second.done for second in group),
            failed=sum(second.failed for second in group),
            p50=max(second.p50 for second in group),
            p99=max(second.p99 for second in group),
            connected=group[-1].connected,
        )
        for group in groups
    ]


def _middle(second: Second) -> float:
    return second.at - second.seconds / 2


def _elapsed(run: Run) -> svg.Axis:
    end = max((second.at for second in run.seconds), default=0.0)
    return svg.linear("seconds since the start", max(end, _band(run)[1]))


def _band(run: Run) -> tuple[float, float]:
    return run.measured_from, run.measured_from + run.totals.seconds


def _time_axis(lines: Sequence[svg.Line]) -> svg.Axis:
    values = [max(value, LATENCY_MIN_SECONDS) for line in lines for _, value in line.points]
    low, high = min(values, default=1e-3), max(values, default=1e-2)
    return svg.logarithmic("latency", low, high, _seconds)


def _seconds(value: float) -> str:
    if value >= 1:
        return f"{value:g} s"
    return f"{value * 1000:g} ms" if value >= 1e-3 else f"{value * 1e6:g} us"
