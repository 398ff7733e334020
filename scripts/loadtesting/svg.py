"""Panels with axes and lines, as SVG made by hand. Knows nothing of what is drawn.

Axes map values to 0..1; a panel maps that to pixels. Everything is inline, so that the file can
be opened, sent and put into a page as it is.
"""

from collections.abc import Callable, Iterable, Sequence
from math import ceil, floor, log10
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

WIDTH: Final = 860
LEFT: Final = 72
RIGHT: Final = 40
TEXT: Final = "#374151"
FAINT: Final = "#e5e7eb"
BAND: Final = "#f3f6fb"
TICKS_MAX: Final = 8
FEW_DECADES: Final = 2
"""A logarithmic axis of so many decades has ticks at 1, 2 and 5."""

Point = tuple[float, float]


class Axis(NamedTuple):
    """`place` maps a value to 0 (low end) .. 1 (high end); `ticks` are values with their labels."""

    label: str
    place: Callable[[float], float]
    ticks: Sequence[tuple[float, str]]


def linear(label: str, high: float) -> Axis:
    """Return an axis from 0 to at least `high`."""
    step = 10.0 ** floor(log10(high)) if high > 0 else 1.0
    step = next(step * part for part in (0.2, 0.5, 1, 2) if high / (step * part) <= TICKS_MAX)
    count = max(1, ceil(high / step))

    def place(value: float) -> float:
        return value / (step * count)

    ticks = [(step * k, f"{round(step * k, 9):,g}") for k in range(count + 1)]
    return Axis(label, place, ticks)


def logarithmic(label: str, low: float, high: float, name: Callable[[float], str]) -> Axis:
    """Return an axis whose ends are powers of ten around `low` and `high` (above 0).

    `name` returns the label of a tick; what is below the axis is placed at its end.
    """
    first = floor(log10(low))
    decades = max(1, ceil(log10(high)) - first)
    parts = (1, 2, 5) if decades <= FEW_DECADES else (1,)
    ticks = [10.0 ** (first + k) * part for k in range(decades) for part in parts]
    ticks.append(10.0 ** (first + decades))

    def place(value: float) -> float:
        return (log10(max(value, 10.0**first)) - first) / decades

    return Axis(label, place, [(tick, name(tick)) for tick in ticks])


class Line(NamedTuple):
    """A line through `points`; one without a name is not in the legend."""

    name: str
    colour: str
    points: Sequence[Point]


class Panel(NamedTuple):
    """One diagram. `band` is a range of x to set off."""

    title: str
    x: Axis
    y: Axis
    lines: Sequence[Line]
    band: tuple[float, float] | None = None


def document(title: str, subtitle: str, panels: Sequence[Panel], height: int = 250) -> str:
    """Return an SVG document with the panels below each other."""
    top = 76
    total = top + height * len(panels)
    size = f'viewBox="0 0 {WIDTH} {total}" width="{WIDTH}" height="{total}"'
    font = f'font-family="system-ui, sans-serif" font-size="12" fill="{TEXT}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{total}" fill="#ffffff"/>',
        _text(LEFT, 32, title, "start", 'font-size="17" font-weight="600"'),
        _text(LEFT, 52, subtitle, "start"),
    ]
    for index, panel in enumerate(panels):
        parts += _panel(panel, top + height * index, height)
    return "\n".join([*parts, "</svg>\n"])


def _panel(panel: Panel, top: int, height: int) -> Iterable[str]:
    upper = top + 34
    lower = top + height - 48
    right = WIDTH - RIGHT

    def x(value: float) -> float:
        return LEFT + panel.x.place(value) * (right - LEFT)

    def y(value: float) -> float:
        return lower - panel.y.place(value) * (lower - upper)

    yield _text(LEFT, top + 20, panel.title, "start", 'font-weight="600"')
    if panel.band is not None:
        start, stop = map(x, panel.band)
        yield (
            f'<rect x="{start:.1f}" y="{upper}" width="{stop - start:.1f}" '
            f'height="{lower - upper}" fill="{BAND}"/>'
        )
    for value, name in panel.y.ticks:
        yield _rule(LEFT, y(value), right, y(value))
        yield _text(LEFT - 8, y(value) + 4, name, "end")
    for value, name in panel.x.ticks:
        yield _rule(x(value), upper, x(value), lower)
        yield _text(x(value), lower + 17, name, "middle")
    yield _text((LEFT + right) / 2, lower + 36, panel.x.label, "middle")
    middle = (upper + lower) / 2
    yield _text(16, middle, panel.y.label, "middle", f'transform="rotate(-90 16 {middle:.1f})"')
    legend = right
    for line in reversed([line for line in panel.lines if line.name]):
        yield _text(legend, top + 20, line.name, "end", f'style="fill:{line.colour}"')
        legend -= 7 * len(line.name) + 18
    for line in panel.lines:
        points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in line.points)
        yield (
            f'<polyline points="{points}" fill="none" stroke="{line.colour}" '
            'stroke-width="2" stroke-linejoin="round"/>'
        )


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{FAINT}"/>'


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{escape(text)}</text>'
