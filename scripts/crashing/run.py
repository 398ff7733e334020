"""A whole run: episodes on one journal, until there were enough kills or something was wrong."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from scripts.checking.history import Writer

from .client import Tally
from .episode import Episode, Outcome
from .faults import LIFE_SECONDS, MONGODB, SQLITE, Kind, Plan
from .options import Options
from .stage import SERVE, Stage
from .workload import EVERYTHING, Mix


@dataclass(frozen=True)
class Scenario:
    """What happens in a run: requests, faults (None: all of the journal's) and the server.

    `life_seconds` is how long a server lives on average. `command` is what Python runs as the
    server. `operator` tells whether one is at work.
    """

    mix: Mix = EVERYTHING
    faults: Mapping[Kind, float] | None = None
    life_seconds: float = LIFE_SECONDS
    command: Sequence[str] = SERVE
    operator: bool = True


DEFAULT: Final = Scenario()


@dataclass
class Run:
    """A run and what came of it; `seconds` is how long it took, `kept` where the evidence is."""

    options: Options
    directory: Path
    scenario: Scenario = DEFAULT
    tally: Tally = field(default_factory=Tally)
    outcome: Outcome = field(default_factory=Outcome)
    seconds: float = 0.0
    kept: Path | None = None

    async def run(self, progress: Callable[["Run"], None]) -> None:
        """Run the episodes; `progress` is called after each."""
        options, scenario, outcome = self.options, self.scenario, self.outcome
        began = time.monotonic()
        dice = Random(options.seed)  # noqa: S311 - a plan is no secret
        stage = Stage(self.directory, options.journal, scenario.command)
        everything = SQLITE if options.journal == "sqlite" else MONGODB
        faults = Plan(scenario.faults or everything, dice, scenario.life_seconds)
        try:
            await stage.database_up()
            while outcome.violation is None and outcome.kills < options.kills:
                stage.episode = self.directory / f"episode-{outcome.episodes + 1:04d}"
                stage.episode.mkdir()
                stage.history = Writer(stage.episode, "clients")
                kills = min(options.episode, options.kills - outcome.kills)
                episode = Episode(stage, self.tally, outcome, options.patience)
                if scenario.operator:
                    episode.employ(Random(dice.random()))  # noqa: S311 - a plan is no secret
                await episode.run(options.sessions, scenario.mix, iter(faults), kills, dice)
                self.seconds = time.monotonic() - began
                if outcome.violation is None:
                    shutil.rmtree(stage.episode)
                else:
                    self.kept = stage.episode
                progress(self)
        finally:
            self.seconds = time.monotonic() - began
            await stage.close()
