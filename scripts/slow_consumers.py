"""Clients that stop reading: what they cost the server's memory, and the other clients.

    .venv/bin/python scripts/slow_consumers.py
    .venv/bin/python scripts/slow_consumers.py --mebibytes 64 --seconds 5 --pairs 1

Each pair is a fresh server under a steady load of small requests: first quiet, then while 100
clients ask for great amounts of results and read none of them. The results are kept ones, until
the session has as many as it may, and live ones, which nobody keeps. Exit code 0 when the server
stayed within the bound its settings give, and p99 of the others within 1.5 times of the quiet
time (median of the pairs); 1 when not.
"""

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from scripts.arguments import count
from scripts.slowreading.run import Load, Outcome, run

RATIO_MAX = 1.5
MIB = 2**20


def main() -> int:
    """Run as the command line says; return the exit code."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=count(1000), default=100, help="that stop reading")
    parser.add_argument("--mebibytes", type=count(16_384), default=1024, help="results in all")
    parser.add_argument("--seconds", type=count(600), default=20, help="that it takes")
    parser.add_argument("--pairs", type=count(20), default=3, help="quiet and slow, alternating")
    options = parser.parse_args()
    load = Load(options.clients, options.mebibytes * MIB, options.seconds, options.seconds / 10)
    outcomes: list[Outcome] = []
    for _ in range(options.pairs):
        with TemporaryDirectory(prefix="slow-consumers-") as directory:
            outcomes.append(run(load, Path(directory)))
        print(line(outcomes[-1]), flush=True)
    return verdict(outcomes)


def line(one: Outcome) -> str:
    """Return what a pair has shown."""
    return (
        f"produced {one.produced_bytes // MIB} MiB, {one.disconnected} disconnected; memory "
        f"{one.before_bytes // MIB} -> {one.peak_bytes // MIB} MiB, bound "
        f"{one.bound_bytes // MIB}; p99 of the others {one.quiet_p99_seconds * 1000:.1f} -> "
        f"{one.slow_p99_seconds * 1000:.1f} ms, ratio {one.ratio:.2f}"
    )


def verdict(outcomes: list[Outcome]) -> int:
    """Print whether the bounds held; return the exit code."""
    peak = max(one.peak_bytes / one.bound_bytes for one in outcomes)
    ratio = median(one.ratio for one in outcomes)
    print(f"memory {peak:.2f} of its bound: {'held' if peak <= 1 else 'BROKEN'}")
    print(
        f"p99 ratio {ratio:.2f}, at most {RATIO_MAX}: {'held' if ratio <= RATIO_MAX else 'BROKEN'}"
    )
    return 0 if peak <= 1 and ratio <= RATIO_MAX else 1


if __name__ == "__main__":
    sys.exit(main())
