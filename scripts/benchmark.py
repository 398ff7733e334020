"""The scoreboard: queueSystem against what a bare server or the bare disk does, in one run.

    .venv/bin/python scripts/benchmark.py                      everything, about 10 minutes
    .venv/bin/python scripts/benchmark.py --short              the main ratios in 20 seconds
    .venv/bin/python scripts/benchmark.py round_trip memory    these scenarios only
    .venv/bin/python scripts/benchmark.py throughput --points 50x16 --repeat 5 --json result.json

for each scenario: (ours and the other, one right after the other) x repeat -> medians -> a line

The server under test has one core and the load another. Absolute numbers depend on the machine,
ratios matter. A target that is missed is said and changes nothing else; a reply that is lost,
repeated, changed or out of order, and a server that fails, make the exit code 1.
"""

import json
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final

from bench import options, scoreboard
from bench.context import SPARE_FILES, Context, Sizes
from bench.dialects import Violation
from bench.machine import BUSY_LOAD, filesystem, machine
from bench.options import Options
from bench.scenario import NotMeasured, Outcome
from bench.scenarios import SCENARIOS
from bench.scoreboard import Figure
from bench.servers import SERVER_LOG, Cores, ServerFailed, two_cores
from bench.websocket import ConnectionFailed

ROOT: Final = Path(__file__).resolve().parents[1]
LOG_CHARACTERS: Final = 4000
MEMORY_FILESYSTEMS: Final = frozenset({"tmpfs", "ramfs"})
FAILURES: Final = (Violation, ConnectionFailed, ServerFailed, OSError)
"""What says that a server is broken; anything else is a mistake in the benchmark."""


def main() -> int:
    """Run as the command line says; return the exit code."""
    chosen = options.parse((__doc__ or "").partition("\n")[0])
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, _interrupt)
    files_max = _raise_file_limit(chosen.sizes)
    cores = two_cores()
    about = machine()
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=_parent(chosen)) as name:
        directory = Path(name)
        about["filesystem"] = filesystem(directory)
        print(_heading(about, chosen, directory, cores), flush=True)
        context = Context(
            directory,
            cores,
            chosen.sizes,
            files_max=files_max,
            journal=chosen.journal,
            mongodb=chosen.mongodb,
        )
        try:
            outcomes, failed = _run(context, chosen.scenarios, chosen.repeat)
        except KeyboardInterrupt:
            print("benchmark: stopped", file=sys.stderr)
            return 128 + signal.SIGINT  # as shells have it
    _show(chosen, about, outcomes)
    return 1 if failed else 0


def _run(
    context: Context, names: Sequence[str], repeat: int
) -> tuple[dict[str, Outcome], list[str]]:
    """Run the scenarios; one that fails does not keep the others from running.

    Returns what came out by scenario, and the names of those that failed.
    """
    outcomes: dict[str, Outcome] = {}
    failed: list[str] = []
    for name in names:
        began = time.monotonic()
        scenario = SCENARIOS[name](context)
        try:
            for repetition in range(1, repeat + 1):
                scenario.repeat()
                seconds = time.monotonic() - began
                _progress(f"{name}: {repetition} of {repeat} after {seconds:.0f} s")
            outcome = scenario.outcome()
        except NotMeasured as missing:
            outcome = Outcome([Figure(name, note=str(missing))], f"not measured: {missing}", {})
        except FAILURES as error:
            failed.append(name)
            message = f"FAILED with {type(error).__name__}: {error}"
            _fail(f"{name} {message}", context.directory)
            outcome = Outcome([Figure(name, note=message)], message, {"failed": message})
        outcomes[name] = outcome
        print(f"{name}\n{outcome.text}\n", flush=True)
    return outcomes, failed


def _show(chosen: Options, about: dict[str, Any], outcomes: dict[str, Outcome]) -> None:
    """Print the scoreboard, and write it as JSON and Markdown if that was asked for."""
    figures = [figure for outcome in outcomes.values() for figure in outcome.figures]
    print(f"scoreboard\n{scoreboard.table(figures)}")
    if chosen.json is not None:
        run = {
            "machine": about,
            "journal": chosen.journal_kind,
            "repeat": chosen.repeat,
            "sizes": chosen.sizes._asdict(),
            "scenarios": {name: outcome.data for name, outcome in outcomes.items()},
            "scoreboard": scoreboard.as_json(figures),
        }
        chosen.json.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    if chosen.markdown is not None:
        chosen.markdown.write_text(scoreboard.as_markdown(figures) + "\n", encoding="utf-8")


def _parent(chosen: Options) -> Path:
    """Return the directory for temporary files: on the project's disk, unless told otherwise."""
    if chosen.directory is not None:
        return chosen.directory.resolve()
    usual = Path(tempfile.gettempdir())
    return usual if usual.stat().st_dev == ROOT.stat().st_dev else ROOT


def _heading(about: dict[str, Any], chosen: Options, directory: Path, cores: Cores | None) -> str:
    kind = about["filesystem"]
    versions = (
        "{cores} cores ({cpu}), {system}, Python {python}, websockets {websockets}, "
        "uvloop {uvloop}, SQLite {sqlite}: absolute numbers are noisy, ratios matter"
    )
    run = (
        f"journal {chosen.journal_kind}; temporary files in {directory.parent} ({kind}); "
        f"medians of {chosen.repeat} x {chosen.sizes.seconds:g} s"
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


def _raise_file_limit(sizes: Sizes) -> int:
    """Allow as many open files as there are connections, if possible; return what is allowed.

    The servers inherit it.
    """
    wanted = SPARE_FILES + max(
        *(point.connections for point in sizes.points),
        *sizes.idle_sessions,
        sizes.storm_connections,
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Let SIGTERM end the run as Ctrl-C does: what was started is ended, files are removed."""
    signal.raise_signal(signal.SIGINT)


def _fail(message: str, directory: Path) -> None:
    print(f"benchmark: {message}", file=sys.stderr)
    log = directory / SERVER_LOG
    if log.exists():
        text = log.read_text(encoding="utf-8", errors="replace")[-LOG_CHARACTERS:]
        print(f"the end of the server's log:\n{text}", file=sys.stderr)


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
