"""The crash test sees every bug that is patched into the server, and none where there is none.

Each mutation is aimed at: the requests, the faults and the cut connections that bring it to light.
"""

from pathlib import Path
from typing import NamedTuple

import pytest

from scripts.checking.rules import RULES
from scripts.crashing.faults import Kind
from scripts.crashing.run import Scenario
from scripts.crashing.workload import Mix
from tests.crash.mutant import MUTATIONS
from tests.crash.runs import run

PATIENCE_SECONDS = 3
"""A mutant may stop doing anything: that is seen, too."""
EPISODES = 4
"""How often a mutant is run until its bug is seen: a kill need not fall where the bug shows."""


class Aim(NamedTuple):
    """What brings a mutation to light."""

    mix: Mix
    faults: dict[Kind, float]
    kills: int = 1
    journal: str = "sqlite"
    life_seconds: float = 0.3


SHORT = {"quick": 30.0, "pause": 30.0, "once": 10.0, "unstarted": 10.0, "stream": 10.0}
KILLED = Aim(Mix(SHORT, pause_seconds=0.05, lazy=0.7), {"kill": 1})
"""SIGKILL under load, with late acknowledgements."""
KILLED_TWICE = KILLED._replace(kills=2)
UNACKNOWLEDGED = KILLED_TWICE._replace(mix=Mix(SHORT, pause_seconds=0.05, lazy=1), life_seconds=0.6)
"""SIGKILL when every client has events that it has not acknowledged."""
IDLE = Aim(Mix({"quick": 1}, pause_seconds=0.6, batch=1, lazy=0), {"kill": 1}, kills=2)
"""SIGKILL when most sessions have nothing to do."""
STARTED = Aim(Mix({"once": 1, "unstarted": 1}, pause_seconds=0.05), {"kill": 1})
"""SIGKILL while methods run that must not run again."""
AWAY = Aim(Mix(SHORT, pause_seconds=0.05, abort=0.2, away_seconds=1), {"kill": 1}, kills=3)
"""SIGKILL while many clients are away, with results waiting for them."""
PIECES = Aim(Mix({"slow_pieces": 1}, batch=1, lazy=1, abort=0.1), {"kill": 1}, kills=3)
"""SIGKILL, and cut connections, while long streams are in the journal in part."""
CUT = Aim(
    Mix(SHORT, pause_seconds=0.05, lazy=0.9, abort=0.1, repeat=0.2, conflict=0.2),
    {"kill": 1},
)
"""Connections that are cut, and requests that are sent again; the server's death is aside."""
REPLACED = Aim(Mix(SHORT, pause_seconds=0.05), {"kill": 1, "pause": 2}, journal="mongodb")
"""A server that is paused, and replaced."""
AIM_NAMES = ["killed", "idle", "started", "away", "pieces", "cut", "replaced"]

AIMS = {
    "accepted_before_commit": KILLED,
    "runs_before_commit": KILLED,
    "commit_is_written_without_its_entries": KILLED,
    "waiting_request_is_dropped_by_recovery": KILLED,
    "checkpoint_forgets_a_session": KILLED_TWICE,
    "checkpoint_trims_too_much": KILLED_TWICE,
    "done_before_commit": KILLED,
    "finished_request_runs_again": UNACKNOWLEDGED,
    "result_is_lost_by_recovery": AWAY,
    "two_run_at_a_time": KILLED,
    "recovery_in_wrong_order": KILLED,
    "numbers_begin_anew": IDLE,
    "attempt_is_not_counted": KILLED,
    "repeated_request_runs_again": CUT,
    "conflict_is_taken_for_a_repetition": CUT,
    "started_method_runs_again": STARTED,
    "method_that_must_not_runs_again": STARTED,
    "epoch_is_not_looked_at": UNACKNOWLEDGED,
    "events_come_again_in_the_same_epoch": CUT,
    "unacknowledged_events_are_lost": CUT,
    "number_of_an_event_is_skipped": CUT,
    "results_of_an_older_attempt_come_too": PIECES,
    "nothing_is_fenced": REPLACED,
}


def scenario(aim: Aim, mutation: str) -> Scenario:
    return Scenario(
        aim.mix,
        aim.faults,
        aim.life_seconds,
        ("-m", "tests.crash.mutant", mutation),
        operator=False,
    )


def test_every_mutation_is_aimed_at() -> None:
    assert set(AIMS) == set(MUTATIONS) - {"none"}


@pytest.mark.parametrize("mutation", AIMS)
def test_the_bug_is_seen(tmp_path: Path, mutation: str) -> None:
    aim = AIMS[mutation]
    made = run(
        tmp_path,
        scenario(aim, mutation),
        kills=EPISODES * aim.kills,
        episode=aim.kills,
        journal=aim.journal,
        patience=PATIENCE_SECONDS,
    )
    assert made.outcome.violation is not None
    rule, _ = made.outcome.violation
    assert rule in RULES, "it was found by something else than the history"


@pytest.mark.parametrize(
    "aim", [KILLED_TWICE, IDLE, STARTED, AWAY, PIECES, CUT, REPLACED], ids=AIM_NAMES
)
def test_nothing_is_seen_where_there_is_no_bug(tmp_path: Path, aim: Aim) -> None:
    made = run(tmp_path, scenario(aim, "none"), kills=aim.kills, journal=aim.journal)
    assert made.outcome.violation is None
    assert made.tally.ends
