"""Check the history of a run: did the server keep its guarantees?

    .venv/bin/python scripts/check.py DIRECTORY

Prints what was looked at, and the first violation with what happened around it. Exit code 0 means
that there is none, 1 that there is one, 2 that the history cannot be read.
"""

import argparse
import sys
from pathlib import Path

from checking.history import HistoryError
from checking.report import check_directory, summary
from checking.rules import RULES


def main() -> int:
    """Run as the command line says; return the exit code."""
    parser = argparse.ArgumentParser(
        description="Check the history of a run: did the server keep its guarantees?",
        epilog="The rules:\n" + "\n".join(f"  {name}  {rule}" for name, rule in RULES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("directory", type=Path, help="where the *.jsonl files of the run are")
    options = parser.parse_args()
    try:
        report = check_directory(options.directory)
    except (HistoryError, OSError) as error:
        print(f"check: {error}", file=sys.stderr)
        return 2
    print(summary(report))
    if report.violation is not None:
        print(f"\n{report.explanation}")
        return 1
    print("no violation")
    return 0


if __name__ == "__main__":
    sys.exit(main())
