"""Kill a server under load over and over, and check that it keeps what it guarantees.

    .venv/bin/python scripts/crashtest.py --kills 100
    .venv/bin/python scripts/crashtest.py --kills 40 --journal mongodb

`--help` explains what is done, the options and the exit codes.
"""

import json
import shutil
import sys
from pathlib import Path
from tempfile import mkdtemp

import uvloop

from scripts.crashing import report
from scripts.crashing.options import parse
from scripts.crashing.run import Run

INTERRUPTED = 130


def main() -> int:
    """Run as the command line says; return the exit code."""
    options = parse()
    directory = options.directory or Path(mkdtemp(prefix="crashtest-"))
    run = Run(options, directory)
    print(f"seed {options.seed}, in {directory}", file=sys.stderr, flush=True)
    try:
        uvloop.run(run.run(lambda at: print(report.line(at), file=sys.stderr, flush=True)))
    except KeyboardInterrupt:
        print(report.text(run))
        return INTERRUPTED
    finally:
        if run.outcome.violation is None and options.directory is None:
            shutil.rmtree(directory)
    print(report.text(run))
    if options.json is not None:
        options.json.write_text(json.dumps(report.as_json(run), indent=2) + "\n", encoding="utf-8")
    return 0 if run.outcome.violation is None else 1


if __name__ == "__main__":
    sys.exit(main())
