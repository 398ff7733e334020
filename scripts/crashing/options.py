"""The command line, checked."""

import argparse
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scripts.arguments import count, writable

from .processes import MONGODB_DAEMON

KILLS_MAX: Final = 1_000_000
SESSIONS_MAX: Final = 1000
PATIENCE_SECONDS_MAX: Final = 3600

DESCRIPTION: Final = """\
Run a queueSystem server under load, kill it over and over, and decide from the history of what
clients saw and handlers did whether every guarantee was kept.

The server dies by SIGKILL: at random moments, while it starts and recovers, and at chosen points in
the middle of commits, checkpoints and recoveries. It is also ended with SIGTERM, and paused with
SIGSTOP until another server has tried to take over. With MongoDB, the database is killed, too.
Clients send, cancel, repeat themselves, are cut off in all states, take over their own sessions,
acknowledge late, and leave. An operator cancels requests and closes sessions, by way of the
journal, whether a server runs or not.

The run goes in episodes: after so many kills everything comes to its end, and the history is
checked (scripts/check.py does the same once more). The journal stays the same all the time. A
history with a violation is kept, and the run ends.

--seed repeats the plan: what clients ask for, the faults and when they come. How all that
interleaves with the server differs from run to run.
"""
EPILOG: Final = """\
exit codes:
  0    so many kills, no violation
  1    a violation, or no progress for --patience seconds; what was found, and where, is printed
  2    wrong usage
  130  stopped with Ctrl-C

examples:
  .venv/bin/python scripts/crashtest.py --kills 100
  .venv/bin/python scripts/crashtest.py --kills 40 --journal mongodb --seed 7
"""


@dataclass(frozen=True)
class Options:
    """What to do. `directory` is None for one that is made and removed."""

    kills: int
    journal: str
    sessions: int
    episode: int
    seed: int
    patience: float
    directory: Path | None
    json: Path | None


def parse() -> Options:
    """Read the command line; exits with code 2 when it is wrong."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--kills",
        type=count(KILLS_MAX),
        default=100,
        metavar="N",
        help="servers to end with SIGKILL (default: %(default)s)",
    )
    add_journal(parser)
    parser.add_argument(
        "--sessions",
        type=count(SESSIONS_MAX),
        default=30,
        metavar="N",
        help="clients, each with a session at a time (default: %(default)s)",
    )
    parser.add_argument(
        "--episode",
        type=count(KILLS_MAX),
        default=20,
        metavar="N",
        help="kills until everything comes to rest and is checked (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="of the plan (default: a new one, which is printed)"
    )
    parser.add_argument(
        "--patience",
        type=count(PATIENCE_SECONDS_MAX),
        default=60,
        metavar="S",
        help="seconds without any progress that are a failure (default: %(default)s)",
    )
    parser.add_argument(
        "--directory",
        type=_directory,
        metavar="D",
        help="an empty directory for journal, logs and histories (default: a temporary one, "
        "kept after a violation)",
    )
    parser.add_argument("--json", type=writable, metavar="FILE", help="write the results to FILE")
    values = parser.parse_args()
    complete(parser, values)
    return Options(**vars(values))


def add_journal(parser: argparse.ArgumentParser) -> None:
    """Add `--journal`."""
    parser.add_argument(
        "--journal",
        choices=("sqlite", "mongodb"),
        default="sqlite",
        help="mongodb: a SecantusDB is started, from the development environment "
        "(default: %(default)s)",
    )


def complete(parser: argparse.ArgumentParser, values: argparse.Namespace) -> None:
    """Choose a seed where none was given; exit with code 2 when the journal cannot be had."""
    if values.journal == "mongodb" and not MONGODB_DAEMON.exists():
        parser.error("--journal mongodb needs secantusdb in this environment")
    if values.seed is None:
        values.seed = secrets.randbelow(1_000_000)


def _directory(text: str) -> Path:
    path = Path(text).absolute()
    if not path.is_dir() or any(path.iterdir()):
        raise argparse.ArgumentTypeError(f"{text!r} is no empty directory")
    return path
