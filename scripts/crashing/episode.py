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
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec

from scripts.checking.report import check_directory

from .client import Client, Tally
from .faults import AT_START, KILLS, Fault, Kind
from .processes import Process, Stuck
from .stage import Broken, Stage
from .workload import Mix

WINDOW: Final = 12
"""Unfinished requests of a client; the server's own limit is 16."""
TAIL_BYTES: Final = 4000
"""So much of the server's log is shown with a failure."""
STUCK_SECONDS: Final = 0.5
"""For a server that does nothing any more to write its stacks into its log."""
WATCH_SECONDS: Final = 0.25
SETTLE_TRIES: Final = 20
LOCKED: Final = b"is locked by process"
OUTAGE_SECONDS: Final = 0.4
"""The database is away for this long at most."""
BACK_SECONDS: Final = 0.3
_EXPECTED: Final = {
    "handler_failed": b"broken",
    "handlers_do_not_stop": b"",  # threads cannot be ended
    "journal_unavailable": b"MongoDB",
    "start_failed": LOCKED,
    "part_failed": b"the log has something else as",  # a zombie's end
}
"""What the server's log may say at level error or above, and what must be in that line."""


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
        self._settling = 0

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
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await stage.end_servers()
            stage.history.close()
        self._outcome.episodes += 1
        await asyncio.to_thread(self._judge, problem)

    def _judge(self, problem: tuple[str, str] | None) -> None:
        """Have the history checked; what it shows says more than a hang that follows from it."""
        outcome = self._outcome
        report = check_directory(self._stage.episode)
        outcome.checks.update(report.checks)
        outcome.events += sum(report.counts.values())
        if report.violation is not None:
            outcome.violation = (report.violation.rule, report.explanation)
        elif problem is not None:
            rule, text = problem
            outcome.violation = (rule, f"{text}\n{_tail(self._stage.episode / 'server.log')}")
        else:
            complaint = _complaint(self._stage.episode / "server.log")
            if complaint:
                outcome.violation = ("log", f"the server's log says: {complaint}")

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Await `work`. Raises Stuck when nothing at all goes on any more."""
        task = asyncio.create_task(work)
        try:
            seen, since = -1, 0.0
            while not task.done():
                await asyncio.wait([task], timeout=WATCH_SECONDS)
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
            await self._befall(fault)
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

    # Faults

    async def _befall(self, fault: Fault) -> None:
        stage = self._stage
        match fault.kind:
            case "early":
                await self._early(fault.seconds)
            case "trigger":
                await self._trigger(fault)
            case _:
                await self._listening(stage.server)
                await self._unless_ended(fault.seconds)
                await self._live_faults(fault.kind)

    async def _live_faults(self, kind: Kind) -> None:
        stage = self._stage
        match kind:
            case "kill":
                await stage.kill()
            case "term":
                await stage.stop()
            case "pause":
                await (self._pause() if stage.database is None else self._zombie())
            case "database":
                await stage.database_kill()
                await asyncio.sleep(OUTAGE_SECONDS)
                await stage.database_back()
                await self._unless_ended(BACK_SECONDS)
            case "both":
                await stage.database_kill()
                await stage.kill()
                await stage.database_back()
            case _:
                raise AssertionError(kind)

    async def _unless_ended(self, seconds: float) -> None:
        """Let the server live for so long. Raises Broken when it ends by itself."""
        server = self._stage.server
        with suppress(Stuck):
            await server.gone(seconds)
            await self._stage.fell(server)

    async def _listening(self, server: Process) -> None:
        """Wait until `server` listens. Raises Broken when it ended instead."""
        if not await server.listening():
            await self._stage.fell(server)
        if server is self._stage.server:
            self._stage.place.open.set()

    async def _let_in(self, server: Process) -> None:
        """Let clients come once `server` listens, should it come to that."""
        if await server.listening():
            self._stage.place.open.set()

    async def _early(self, seconds: float) -> None:
        """Kill the server so long after it was spawned, whatever it does then."""
        stage = self._stage
        listening = asyncio.create_task(self._let_in(stage.server))
        try:
            await self._unless_ended(seconds)
        finally:
            listening.cancel()
        await stage.kill()

    async def _trigger(self, fault: Fault) -> None:
        """Wait for the server to kill itself; kill it when it does not come to that."""
        stage = self._stage
        listening = asyncio.create_task(self._let_in(stage.server))
        point = "-" if fault.trigger is None else f"{fault.trigger.phase} {fault.trigger.point}"
        try:
            await stage.server.gone(fault.seconds)
        except Stuck:
            await stage.kill()
            point = "not reached"
        else:
            await stage.down(stage.server, -signal.SIGKILL)
        finally:
            listening.cancel()
        self._outcome.points[point] += 1

    async def _pause(self) -> None:
        """Stop the server: another one must refuse its journal. Then let it go on."""
        stage = self._stage
        stage.pause()
        other = stage.successor()
        await other.spawn()
        code = await other.gone()
        said = _last_lines(other.log)
        name = stage.journal.rpartition("/")[2].encode()
        if code != 1 or LOCKED not in said or name not in said:
            raise Broken("lock", f"a second server ended with {code}: {said.decode()}")
        stage.resume(stage.server)

    async def _zombie(self) -> None:
        """Stop the server, have another one take over, let it go on: it must end by itself."""
        stage = self._stage
        zombie = stage.server
        stage.pause()
        stage.place.open.clear()
        successor = stage.successor()
        await stage.spawn(successor)
        await self._listening(successor)
        stage.move_to(successor)
        # The others find out when the old one ends.
        for client in self._clients[::2]:
            client.move()
        await asyncio.sleep(BACK_SECONDS)
        stage.resume(zombie)
        await stage.down(zombie, 1, self._patience_seconds)

    # Rest

    async def _rest(self) -> None:
        """Let everything come to its end; then nothing may be unfinished anywhere."""
        stage = self._stage
        await self._listening(stage.server)
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
            await self._listening(stage.server)
            await asyncio.sleep(BACK_SECONDS)
            self._settling += 1
        raise Broken("rest", "requests of sessions that are over do not come to their end")


def _complaint(log: Path) -> str:
    """Return the first thing in a server's log that a server should never have to say."""
    for line in log.read_bytes().splitlines():
        try:
            said = msgspec.json.decode(line)
        except msgspec.DecodeError:
            continue  # of a pool's process whose server was killed while it started, for example
        expected = _EXPECTED.get(said["event"])
        if said["level"] in {"error", "critical"} and (expected is None or expected not in line):
            return line.decode()
    return ""


def _last_lines(log: Path) -> bytes:
    return log.read_bytes()[-TAIL_BYTES:]


def _tail(log: Path) -> str:
    return _last_lines(log).decode(errors="replace") if log.exists() else ""
