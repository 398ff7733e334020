"""The command line: which scenarios, how much of them, and where."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from .context import Sizes
from .load import Point
from .scenarios import SCENARIOS, SHORT, SHORT_SIZES

REPEAT: Final = 3
SECONDS_MAX: Final = 3600.0
SQLITE: Final = "sqlite:///"


class Options(argparse.Namespace):
    """What was asked for. `journal` and `mongodb` are URLs, or None for fresh ones."""

    scenarios: Sequence[str]
    sizes: Sizes
    repeat: int
    journal: str | None
    mongodb: str | None
    directory: Path | None
    json: Path | None
    markdown: Path | None

    @property
    def journal_kind(self) -> str:
        """What kind of store it is; a URL may hold a password."""
        return "sqlite" if self.journal is None else self.journal.partition(":")[0]


def parse(description: str) -> Options:
    """Read the command line of this process; exits with code 2 when it makes no sense."""
    parser = _parser(description)
    found = parser.parse_args(namespace=Options())
    if unknown := [name for name in found.scenarios if name not in SCENARIOS]:
        parser.error(f"{', '.join(unknown)}: not one of {', '.join(SCENARIOS)}")
    found.scenarios = found.scenarios or (SHORT if found.short else tuple(SCENARIOS))
    found.repeat = found.repeat or (1 if found.short else REPEAT)
    sizes = SHORT_SIZES if found.short else Sizes()
    found.sizes = sizes._replace(
        seconds=found.seconds or sizes.seconds,
        warm_up_seconds=found.warm_up or sizes.warm_up_seconds,
        points=found.points or sizes.points,
    )
    if found.journal is not None and found.journal.startswith(SQLITE):
        # The server runs in another directory.
        path = Path(found.journal.removeprefix(SQLITE)).resolve()
        found.journal = f"{SQLITE}{path}"
        found.directory = found.directory or path.parent
    return found


def _parser(description: str) -> argparse.ArgumentParser:
    sizes = Sizes()
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "scenarios",
        nargs="*",
        metavar="SCENARIO",
        help=f"{', '.join(SCENARIOS)} (default: all of them)",
    )
    parser.add_argument(
        "--short",
        action="store_true",
        help=f"less of everything, once: {', '.join(SHORT)} in 20 seconds",
    )
    parser.add_argument(
        "--points",
        type=_points,
        help=f"throughput at CONNECTIONSxWINDOW (default: {','.join(map(str, sizes.points))})",
    )
    parser.add_argument(
        "--seconds",
        type=_positive,
        help=f"time of one measurement (default: {sizes.seconds:g}; {SHORT_SIZES.seconds:g} with "
        "--short)",
    )
    parser.add_argument(
        "--warm-up",
        type=_positive,
        help=f"time before it, in seconds (default: {sizes.warm_up_seconds:g})",
    )
    parser.add_argument(
        "--repeat",
        type=_count,
        help="measurements of each, of which medians are shown (default: "
        f"{REPEAT}; 1 with --short)",
    )
    parser.add_argument(
        "--journal",
        metavar="URL",
        help="the server's journal, used again for every measurement and not removed (default: a "
        "new SQLite file for each)",
    )
    parser.add_argument(
        "--mongodb",
        metavar="URL",
        help="a MongoDB to measure with, in a database of its own (default: a SecantusDB, where "
        "it is installed)",
    )
    parser.add_argument(
        "--directory", type=Path, help="where temporary files go (default: the project's disk)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there too")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the scoreboard there too"
    )
    return parser


def _points(text: str) -> tuple[Point, ...]:
    points: list[Point] = []
    for part in text.split(","):
        connections, cross, window = part.strip().partition("x")
        if not cross:
            raise argparse.ArgumentTypeError(f"{part!r} is not CONNECTIONSxWINDOW, such as 50x16")
        points.append(Point(_count(connections), _count(window)))
    return tuple(dict.fromkeys(points))


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= SECONDS_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0, up to {SECONDS_MAX:g}")
    return value
