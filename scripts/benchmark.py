"""Compare queueSystem with a bare `websockets` echo server, in one run on this machine.

    .venv/bin/python scripts/benchmark.py
    .venv/bin/python scripts/benchmark.py --points 50x16 --repeat 5 --json result.json
    .venv/bin/python scripts/benchmark.py --journal mongodb://127.0.0.1/benchmark

For every point (connections x unfinished requests of each) both servers are started afresh, one
after the other, on one core; the load comes from another. Our server has its journal on disk with
fsync, and a request counts when its `done` has come. Every reply is checked: one that is lost,
repeated or out of order ends the run with exit code 1.
"""

import argparse
import json
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any, Final

import uvloop
from bench import report
from bench.load import Dialect, Echo, Point, Queue, Requests, Violation, measure
from bench.machine import BUSY_LOAD, fdatasync_seconds, filesystem, machine
from bench.servers import (
    Cores,
    Server,
    ServerFailed,
    echo_server,
    new_secret,
    on_core,
    queue_server,
    token,
    two_cores,
)
from bench.websocket import ConnectionFailed

ROOT: Final = Path(__file__).resolve().parents[1]
POINTS: Final = "1x1,50x1,50x16,500x4"
WINDOW_MIN: Final = 64
"""What the server allows by default; larger windows are configured."""
SPARE_FILES: Final = 1000
SECONDS_MAX: Final = 3600.0
LOG_CHARACTERS: Final = 4000
SQLITE: Final = "sqlite:///"
MEMORY_FILESYSTEMS: Final = frozenset({"tmpfs", "ramfs"})

Start = Callable[[], AbstractContextManager[Server]]
"""Starts a server, ready and idle."""


class Benchmark:
    """One run: what to measure, where, and for how long."""

    def __init__(self, options: argparse.Namespace, directory: Path, cores: Cores | None) -> None:
        self._points: list[Point] = options.points
        self._seconds: float = options.seconds
        self._warm_up_seconds: float = options.warm_up
        self._repeat: int = options.repeat
        self._journal: str | None = options.journal
        self._directory = directory
        self._cores = cores
        self._secret = new_secret()
        self._requests = Requests()
        self._journals = 0
        self.fdatasync_seconds: list[float] = []

    def run(self) -> list[report.Row]:
        """Measure everything, the repetitions of all points interleaved."""
        pairs: dict[Point, list[tuple[report.Run, report.Run]]] = {p: [] for p in self._points}
        for repetition in range(1, self._repeat + 1):
            for point in self._points:
                self.fdatasync_seconds.append(fdatasync_seconds(self._directory))
                echo = self._run_echo(point)
                ours = self._run_ours(point)
                pairs[point].append((echo, ours))
                _progress(
                    f"{repetition}/{self._repeat} {point}: echo {echo.measurement.rate:.0f}/s, "
                    f"ours {ours.measurement.rate:.0f}/s"
                )
        return [report.Row.of(point, pairs[point]) for point in self._points]

    def _run_echo(self, point: Point) -> report.Run:
        start = partial(echo_server, self._directory, self._server_core)
        dialects = [Echo(self._requests) for _ in range(point.connections)]
        return self._measure(start, point, dialects)

    def _run_ours(self, point: Point) -> report.Run:
        settings = {
            "journal": self._journal or self._fresh_journal(),
            "window": max(WINDOW_MIN, point.window),
            "max_connections": point.connections + WINDOW_MIN,
        }
        start = partial(queue_server, self._directory, self._server_core, self._secret, settings)
        dialects = [
            Queue(self._requests, token(self._secret, f"load-{k}"))
            for k in range(point.connections)
        ]
        return self._measure(start, point, dialects)

    @property
    def _server_core(self) -> int | None:
        return None if self._cores is None else self._cores.server

    def _fresh_journal(self) -> str:
        self._journals += 1
        return f"sqlite:///{self._directory / f'journal-{self._journals}.db'}"

    def _measure(self, start: Start, point: Point, dialects: Sequence[Dialect]) -> report.Run:
        cpu: list[float] = []
        with start() as server, on_core(None if self._cores is None else self._cores.load):
            measurement = uvloop.run(
                measure(
                    server.url,
                    dialects,
                    point.window,
                    warm_up_seconds=self._warm_up_seconds,
                    seconds=self._seconds,
                    at_edges=lambda: cpu.append(server.cpu_seconds()),
                )
            )
        return report.Run(measurement, cpu[1] - cpu[0])


def main() -> int:
    """Run as the command line says; return the exit code."""
    options = _options()
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, _interrupt)
    _raise_file_limit(max(point.connections for point in options.points))
    cores = two_cores()
    about = machine()
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=_parent(options)) as name:
        directory = Path(name)
        about["filesystem"] = filesystem(directory)
        print(_heading(about, options, directory, cores), flush=True)
        benchmark = Benchmark(options, directory, cores)
        try:
            rows = benchmark.run()
        except (Violation, ConnectionFailed, ServerFailed, OSError) as error:
            _fail(f"{type(error).__name__}: {error}", directory)
            return 1
        except KeyboardInterrupt:
            print("benchmark: stopped", file=sys.stderr)
            return 128 + signal.SIGINT  # as shells have it
    _show(options, about, rows, median(benchmark.fdatasync_seconds))
    return 0


def _show(
    options: argparse.Namespace,
    about: dict[str, Any],
    rows: Sequence[report.Row],
    sync_seconds: float,
) -> None:
    """Print the tables, and write the JSON if it was asked for."""
    print(report.table(rows))
    print(f"\none fdatasync of a small append: {sync_seconds * 1000:.2f} ms (median)")
    # The targets are those of the embedded journal, which writes to the disk that was measured.
    found = report.targets(rows, sync_seconds) if _journal_kind(options) == "sqlite" else []
    if found:
        print("\ntargets")
        print(report.targets_table(found))
    if options.json is not None:
        run = {
            "machine": about,
            "journal": _journal_kind(options),
            "seconds": options.seconds,
            "repeat": options.repeat,
            "fdatasync_seconds": sync_seconds,
        }
        text = json.dumps(run | report.as_json(rows, found), indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--points", type=_points, default=POINTS, help="CONNECTIONSxWINDOW, comma separated"
    )
    parser.add_argument("--seconds", type=_positive, default=4.0, help="time of one measurement")
    parser.add_argument("--warm-up", type=_positive, default=1.0, help="time before it, in seconds")
    parser.add_argument(
        "--repeat", type=_count, default=3, help="measurements of each; medians are shown"
    )
    parser.add_argument(
        "--journal",
        metavar="URL",
        help="the server's journal, used again for every measurement and not removed; "
        "without: a new SQLite file for each",
    )
    parser.add_argument(
        "--directory", type=Path, help="where temporary files go; without: on the project's disk"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    options = parser.parse_args()
    if options.journal is not None and options.journal.startswith(SQLITE):
        # The server runs in another directory.
        path = Path(options.journal.removeprefix(SQLITE)).resolve()
        options.journal = f"{SQLITE}{path}"
        options.directory = options.directory or path.parent
    return options


def _points(text: str) -> list[Point]:
    points: list[Point] = []
    for part in text.split(","):
        connections, cross, window = part.strip().partition("x")
        if not cross:
            raise argparse.ArgumentTypeError(f"{part!r} is not CONNECTIONSxWINDOW, such as 50x16")
        points.append(Point(_count(connections), _count(window)))
    return list(dict.fromkeys(points))


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


def _parent(options: argparse.Namespace) -> Path:
    """Return the directory for temporary files: on the project's disk, unless told otherwise."""
    if options.directory is not None:
        return options.directory.resolve()
    usual = Path(tempfile.gettempdir())
    return usual if usual.stat().st_dev == ROOT.stat().st_dev else ROOT


def _heading(
    about: dict[str, Any], options: argparse.Namespace, directory: Path, cores: Cores | None
) -> str:
    kind = about["filesystem"]
    versions = (
        "{cores} cores ({cpu}), {system}, Python {python}, websockets {websockets}, "
        "uvloop {uvloop}, SQLite {sqlite}: absolute numbers are noisy, ratios matter"
    )
    run = (
        f"journal {_journal_kind(options)}; temporary files in {directory.parent} ({kind}); "
        f"medians of {options.repeat} x {options.seconds:g} s"
    )
    lines = [versions.format(**about), run]
    if kind in MEMORY_FILESYSTEMS:
        lines.append("note: this file system is in memory, where fsync costs nothing")
    if cores is None:
        lines.append("note: not pinned, server and load share what cores there are")
    else:
        lines.append(f"server on core {cores.server}, load on core {cores.load}")
    if about["load_average"] > BUSY_LOAD:
        lines.append(f"note: something else is running here (load {about['load_average']:.1f})")
    return "\n".join(lines) + "\n"


def _journal_kind(options: argparse.Namespace) -> str:
    """Return what kind of store it is; a URL may hold a password."""
    return "sqlite" if options.journal is None else options.journal.partition(":")[0]


def _raise_file_limit(connections: int) -> None:
    """Allow as many open files as there are connections; the servers inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FILES
    if soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Let SIGTERM end the run as Ctrl-C does: what was started is ended, files are removed."""
    signal.raise_signal(signal.SIGINT)


def _fail(message: str, directory: Path) -> None:
    print(f"benchmark: {message}", file=sys.stderr)
    log = directory / "server.log"
    if log.exists():
        text = log.read_text(encoding="utf-8", errors="replace")[-LOG_CHARACTERS:]
        print(f"the end of the server's log:\n{text}", file=sys.stderr)


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
