"""The server keeps its guarantees while it is killed, at random and in the middle of things."""

from pathlib import Path

import pytest

from tests.crash.runs import run

KILLS = 20
SESSIONS = 25


@pytest.mark.parametrize("journal", ["sqlite", "mongodb"])
def test_no_guarantee_is_broken_by_crashes(tmp_path: Path, journal: str) -> None:
    made = run(tmp_path, journal=journal, kills=KILLS, sessions=SESSIONS)
    assert made.outcome.violation is None
    assert made.outcome.kills >= KILLS
