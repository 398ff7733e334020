"""The server keeps its guarantees while it is killed, at random and in the middle of things."""

from pathlib import Path

import pytest

from tests.crash.runs import run

KILLS = {"sqlite": 15, "mongodb": 8}
"""Some 15 seconds each. `scripts/crashtest.py` is for more."""
SESSIONS = 25


@pytest.mark.parametrize("journal", KILLS)
def test_no_guarantee_is_broken_by_crashes(tmp_path: Path, journal: str) -> None:
    made = run(tmp_path, journal=journal, kills=KILLS[journal], sessions=SESSIONS)
    assert made.outcome.violation is None
    assert made.outcome.kills >= KILLS[journal]
    assert made.tally.replays
