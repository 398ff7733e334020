"""One episode: clients under a sequence of faults, then rest, then the verdict of the checker.

up -> clients begin -> fault ... fault -> clients finish -> nothing unfinished -> quiet -> check
"""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from scripts.checking.report import check_directory

from .client import Client, Tally
from .faults import AT_START, KILLS, Fault
from .harm import Harm
from .operator import Operator
from .processes import Stuck
from .serverlog import complaint, tail
from .stage import Broken, Stage
from .workload import Mix

WINDOW: Final = 12
"""Unfinished requests of a client; the server's own limit is 16."""
STUCK_SECONDS: Final = 0.5
"""For a server that does nothing any more to write its stacks into its log."""
WATCH_SECONDS: Final = 0.25
SETTLE_TRIES: Final = 20
"""So often a server is started for what is left of sessions that ended with `bye`,"""
SETTLE_SECONDS: Final = 0.3
"""each time for so long."""


@dataclass
class Outcome:
    """What happened in the episodes so far. `violation` ended the run: rule and explanation."""

    faults: Counter[str] = field(default_factory=Counter[str])
    points: Counter[str] = field(default_factory=Counter[str])
    checks: Counter[str] = field(default_factory=Counter[str])
    events: int = 0
    episodes: int = 0
    violation: tuple[str, str] | None = None

    @property
    def kills(self) -> int:
        """How many servers were ended with SIGKILL."""
        return sum(self.faults[kind] for kind in KILLS)


class Episode:
    """Runs `clients` clients through faults on `stage`."""

    def __init__(
        self,
        stage: Stage,
        tally: Tally,
        outcome: Outcome,
        patience_seconds: float,
    ) -> None:
        self._stage = stage
        self._tally = tally
        self._outcome = outcome
        self._patience_seconds = patience_seconds
        self._clients: list[Client] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._operator: asyncio.Task[None] | None = None
        self._harm = Harm(stage, self._clients, outcome.points, patience_seconds)
        self._settling = 0

    def employ(self, dice: Random) -> None:
        """Have an operator at work until it comes to rest."""
        operator = Operator(self._stage, self._tally, dice)
        self._operator = asyncio.create_task(operator.run(), name="operator")

    async def run(
        self, clients: int, mix: Mix, faults: Iterator[Fault], kills: int, dice: Random
    ) -> None:
        """Do `kills` kills, and the other faults between them; come to rest, and check.

        What was wrong is in the outcome afterwards.
        """
        stage = self._stage
        problem: tuple[str, str] | None = None
        try:
            await self._guarded(self._faults_and_rest(clients, mix, faults, kills, dice))
        except Broken as error:
            problem = (error.rule, str(error))
        except Stuck as error:
            problem = ("hang", str(error))
        finally:
            for task in self._tasks:
                task.cancel()
            if self._operator is not None:
                self._operator.cancel()
                await asyncio.gather(self._operator, return_exceptions=True)
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await stage.end_servers()
            stage.history.close()
        self._outcome.episodes += 1
        await asyncio.to_thread(self._judge, problem)

    def _judge(self, problem: tuple[str, str] | None) -> None:
        """Have the history checked; what it shows says more than a hang that follows from it."""
        outcome = self._outcome
        log = self._stage.episode / "server.log"
        report = check_directory(self._stage.episode)
        outcome.checks.update(report.checks)
        outcome.events += report.counts["events"]
        if report.violation is not None:
            outcome.violation = (report.violation.rule, report.explanation)
        elif problem is not None:
            rule, text = problem
            outcome.violation = (rule, f"{text}\n{tail(log)}")
        elif line := complaint(log):
            outcome.violation = ("log", f"the server's log says: {line}")

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Await `work`. Raises Stuck when nothing at all goes on any more."""
        task = asyncio.create_task(work)
        try:
            seen, since = -1, 0.0
            while not task.done():
                await asyncio.wait([task], timeout=WATCH_SECONDS)
                for client in [each for each in self._tasks if each.done()]:
                    client.result()  # a bug of ours is to be seen at once
                if (now := self._progress()) != seen:
                    seen, since = now, time.monotonic()
                elif time.monotonic() - since > self._patience_seconds and not task.done():
                    raise Stuck(await self._dump())
            task.result()
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, Broken, Stuck):
                await task

    def _progress(self) -> int:
        """Return what grows as long as anything goes on."""
        over = sum(client.over for client in self._clients)
        return self._tally.ends + self._outcome.faults.total() + over + self._settling

    async def _dump(self) -> str:
        """Have the server write its stacks into its log; return who waits for what."""
        self._stage.server.signal(signal.SIGUSR1)
        await asyncio.sleep(STUCK_SECONDS)
        waiting = [str(client) for client in self._clients if not client.over]
        return f"no progress for {self._patience_seconds:g} s: {'; '.join(waiting[:5])}"

    async def _faults_and_rest(
        self, clients: int, mix: Mix, faults: Iterator[Fault], kills: int, dice: Random
    ) -> None:
        stage = self._stage
        outcome = self._outcome
        until = outcome.kills + kills
        self._begin(clients, mix, dice)
        fault = next(faults)
        await stage.up(fault.trigger)
        while outcome.kills < until:
            await self._harm.befall(fault)
            outcome.faults[fault.kind] += 1
            last = outcome.kills >= until
            if stage.server.ended:
                fault = next(faults)
                await stage.durable()
                await stage.up(None if last else fault.trigger)
            else:
                fault = next(fault for fault in faults if fault.kind not in AT_START)
        await self._rest()

    def _begin(self, clients: int, mix: Mix, dice: Random) -> None:
        stage = self._stage
        for number in range(clients):
            name = f"c{number}"
            client = Client(
                name,
                stage.place,
                mix,
                WINDOW,
                Random(dice.random()),  # noqa: S311 - a plan is no secret
                stage.token(name),
                stage.history,
                self._tally,
            )
            self._clients.append(client)
            self._tasks.append(asyncio.create_task(client.run(), name=name))

    # Rest

    async def _dismiss(self) -> None:
        """Let the operator give no further commands. Raises Broken for what was met by then."""
        operator = self._operator
        if operator is not None:
            operator.cancel()
            with suppress(asyncio.CancelledError):
                await operator

    async def _rest(self) -> None:
        """Let everything come to its end; then nothing may be unfinished anywhere."""
        stage = self._stage
        await self._dismiss()
        await self._harm.listening(stage.server)
        for client in self._clients:
            client.finish()
        for task in self._tasks:
            await task
        for _ in range(SETTLE_TRIES):
            # Requests of sessions that ended with `bye` may run on.
            await stage.stop()
            if not await stage.durable():
                stage.history.write("quiet")
                return
            await stage.up()
            await self._harm.listening(stage.server)
            await asyncio.sleep(SETTLE_SECONDS)
            self._settling += 1
        raise Broken("rest", "requests of sessions that are over do not come to their end")
