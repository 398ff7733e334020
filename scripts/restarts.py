"""Restart a server under load over and over, and check that its users notice nothing.

    .venv/bin/python scripts/restarts.py
    .venv/bin/python scripts/restarts.py --clients 50 --restarts 3 --journal mongodb --replace

`--help` explains what is done, the options and the exit codes.
"""

import shutil
import sys
from pathlib import Path
from tempfile import mkdtemp

import uvloop

from scripts.restarting import report
from scripts.restarting.options import parse
from scripts.restarting.run import Run


def main() -> int:
    """Run as the command line says; return the exit code."""
    directory = Path(mkdtemp(prefix="restarts-"))
    run = Run(parse(), directory)
    uvloop.run(run.run())
    print(report.text(run))
    if run.broken:
        print(f"the history is in {directory / 'history'}")
        return 1
    shutil.rmtree(directory)
    return 1 if run.slow else 0


if __name__ == "__main__":
    sys.exit(main())
