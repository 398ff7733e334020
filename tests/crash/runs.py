"""What the runs of these tests are made of."""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

from scripts.crashing.options import Options
from scripts.crashing.report import text
from scripts.crashing.run import DEFAULT, Run, Scenario

SEED = 20261125


def run(directory: Path, scenario: Scenario = DEFAULT, **given: object) -> Run:
    """Run the crash test in `directory`; `given` are options other than these."""
    options = Options(
        kills=3,
        journal="sqlite",
        sessions=12,
        episode=10,
        seed=SEED,
        patience=60,
        directory=directory,
        json=None,
    )
    made = Run(replace(options, **given), directory, scenario)  # type: ignore[arg-type]
    asyncio.run(made.run(_nothing))
    sys.stdout.write(text(made))  # pytest shows it when the test fails
    return made


def _nothing(_run: Run) -> None:
    """Show no progress."""
