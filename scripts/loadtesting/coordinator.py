"""The run as a whole: it starts the processes, tells when to measure, and merges what they say.

    start processes -> Connected from all -> Measure to all -> Ticks -> Totals from all -> Run

SIGINT or SIGTERM stops them, and what was measured until then is the result; a second one ends
the program at once.
"""

import asyncio
import multiprocessing
import signal
import sys
import time
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection as Pipe
from multiprocessing.context import SpawnProcess
from typing import Final

from . import worker
from .meter import Tick, Totals
from .options import Options
from .progress import Progress
from .run import Run, Second
from .tokens import Tokens

START_SECONDS: Final = 0.05
"""From the order to measure until it begins, so that it reaches all processes before."""
END_SECONDS: Final = 1.0
"""For a process whose pipe is closed."""
REPEAT_SECONDS: Final = 0.5
"""A signal that comes so soon after the first is the same one (timeout(1) sends it twice)."""
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@dataclass
class _Member:
    """One of the processes. `totals` is set when it is through."""

    process: SpawnProcess
    pipe: Pipe
    connected: bool = False
    totals: Totals | None = None


class Coordinator:
    """Runs the load that `options` describe; `progress` is told how it goes."""

    def __init__(self, options: Options, tokens: Tokens, progress: Progress) -> None:
        self._options = options
        self._tokens = tokens
        self._progress = progress
        self._began = time.monotonic()
        self._run = Run(options, time.time())
        self._members: list[_Member] = []
        self._pending: dict[int, tuple[int, Tick]] = {}
        self._over = asyncio.Event()
        self._measuring = False
        self._stopped = 0.0

    async def run(self) -> Run:
        """Run it to its end."""
        loop = asyncio.get_running_loop()
        # What is ignored here is ignored there from the first moment on: Ctrl-C is for us alone.
        for name in SIGNALS:
            signal.signal(name, signal.SIG_IGN)
        try:
            for index in range(self._options.processes):
                self._start(index)
        finally:
            for name in SIGNALS:
                loop.add_signal_handler(name, self._stop_early, name)
        try:
            await self._over.wait()
        finally:
            for member in self._members:
                member.process.kill()  # nothing, when it has ended
        for _, tick in sorted(self._pending.values(), key=lambda pair: pair[1].second):
            self._show(tick)
        for member in self._members:
            if member.totals is not None:
                self._run.totals.merge(member.totals)
        return self._run

    def _start(self, index: int) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=worker.main,
            args=(self._options, self._tokens, index, self._began, theirs),
            daemon=True,
        )
        process.start()
        theirs.close()
        member = _Member(process, ours)
        self._members.append(member)
        asyncio.get_running_loop().add_reader(ours.fileno(), partial(self._take, member))

    def _take(self, member: _Member) -> None:
        """Take a message of a process."""
        try:
            message = member.pipe.recv()
        except (EOFError, OSError):
            member.process.join(END_SECONDS)
            code = member.process.exitcode
            message = Totals(fatal=f"a process of the load ended with exit code {code}")
        match message:
            case Tick():
                self._merge(message)
            case worker.Connected():
                member.connected = True
                if all(other.connected for other in self._members):
                    self._measure()
            case worker.Measuring():
                self._say_measuring()
            case _:
                self._end(member, message)

    def _measure(self) -> None:
        options = self._options
        start = time.monotonic() + max(options.warm_up, START_SECONDS)
        self._run.measured_from = start - self._began
        self._tell(worker.Measure(start))
        self._progress.say(f"{options.connections:,} connections; {options.warm_up:g} s of warm-up")

    def _say_measuring(self) -> None:
        if not self._measuring:
            self._measuring = True
            self._progress.say(f"measuring for {self._options.duration:g} s")

    def _end(self, member: _Member, totals: Totals) -> None:
        if member.totals is None:
            asyncio.get_running_loop().remove_reader(member.pipe.fileno())
            member.totals = totals
        if totals.fatal is not None:
            self._tell(worker.Stop())
        if all(other.totals is not None for other in self._members):
            self._over.set()

    def _stop_early(self, name: signal.Signals) -> None:
        now = time.monotonic()
        if self._run.stopped_by is None:
            self._run.stopped_by = name
            self._stopped = now
            self._tell(worker.Stop())
        elif now - self._stopped > REPEAT_SECONDS:
            sys.exit(128 + name)

    def _tell(self, order: object) -> None:
        for member in self._members:
            if member.totals is None:
                try:
                    member.pipe.send(order)
                except OSError:
                    continue  # it is gone, which `_take` sees too

    def _merge(self, tick: Tick) -> None:
        """Add a second of one process; show it when all have told of theirs."""
        count, merged = self._pending.pop(tick.second, (0, None))
        if merged is None:
            merged = tick
        else:
            merged.merge(tick)
        if count + 1 == len(self._members):
            self._show(merged)
        else:
            self._pending[tick.second] = (count + 1, merged)

    def _show(self, tick: Tick) -> None:
        self._run.seconds.append(Second.of(tick))
        self._progress.tick(tick)
