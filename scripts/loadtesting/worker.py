"""One process of the load: it connects, measures when told to, drains, and reports.

    connect all -> Connected -> (Measure) -> Measuring ... -> drain -> bye -> Totals

A Tick goes to the coordinator every second. Stop, or the end of the pipe, or what makes the run
impossible, cut this short: what was measured until then is reported all the same.
"""

import asyncio
import gc
import resource
import signal
import time
from contextlib import suppress
from multiprocessing.connection import Connection as Pipe
from random import Random
from typing import Final, NamedTuple

import uvloop

from .connection import Connection, Fatal
from .meter import Tick, Totals
from .options import Options
from .schedule import BACKLOG_MAX, Arrivals, Backlog, ClosedLoop
from .tokens import Tokens
from .websocket import Target
from .workload import Workload

CONNECT_SECONDS: Final = 30.0
"""For all connections, after the ramp."""
CLOSE_SECONDS: Final = 5.0
PACE_SECONDS: Final = 0.001
"""How exact arrivals are: timers of event loops count milliseconds."""
SPARE_FILES: Final = 100
GARBAGE_THRESHOLD: Final = 100_000
"""Collections of garbage are pauses that would be counted as the server's: have few of them."""


class Connected(NamedTuple):
    """To the coordinator: all connections are there."""


class Measuring(NamedTuple):
    """To the coordinator: the measured time has begun."""


class Measure(NamedTuple):
    """From the coordinator: measure from `start` (monotonic seconds) on."""

    start: float


class Stop(NamedTuple):
    """From the coordinator: come to an end now."""


def main(options: Options, tokens: Tokens, index: int, began: float, pipe: Pipe) -> None:
    """Run process `index` of a run that began at `began` (monotonic seconds)."""
    # Ctrl-C reaches every process of a terminal: it is the coordinator's to say what happens.
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)
    run = Worker(options, tokens, index, began, pipe).run
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, suppress(BrokenPipeError):
        pipe.send(runner.run(run()))


class Worker:
    """Connections `index`, `index` + processes, `index` + 2 processes ... of the run."""

    def __init__(
        self, options: Options, tokens: Tokens, index: int, began: float, pipe: Pipe
    ) -> None:
        self._options = options
        self._began = began
        self._pipe = pipe
        self._work = Workload(
            Target.of(options.url, options.ca),
            tokens,
            method=options.method,
            params=options.params,
            window=options.window,
            open_loop=options.rate is not None,
            random=Random(options.seed * options.processes + index),  # noqa: S311 - no secret
        )
        self._meter = self._work.meter
        numbers = range(index, options.connections, options.processes)
        self._arrivals: Arrivals | None = None
        self._backlogs: list[Backlog] = []
        if options.rate is None:
            supplies = [ClosedLoop() for _ in numbers]
        else:
            limit = max(options.window, BACKLOG_MAX // len(numbers))
            supplies = self._backlogs = [Backlog(limit) for _ in numbers]
            self._arrivals = Arrivals(
                began + index / options.rate,
                options.rate * len(numbers) / options.connections,
                len(numbers),
            )
        self._connections = [
            Connection(number, self._work, supply)
            for number, supply in zip(numbers, supplies, strict=True)
        ]
        self._numbers = numbers
        self._tasks: list[asyncio.Task[None]] = []
        self._timeline: asyncio.Task[None] | None = None
        self._told = asyncio.Event()
        self._closing = False
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tick_began = time.monotonic()
        self._second = 0
        # CPU time at the begin of the measured time, while that is running.
        self._cpu_began: float | None = None

    # From start to end

    async def run(self) -> Totals:
        """Run from start to end, or to where it is cut short."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._pipe.fileno(), self._obey)
        _raise_file_limit(len(self._connections))
        self._plan_tick()
        if self._arrivals is not None:
            self._pace(self._arrivals)
        totals = self._meter.totals
        self._timeline = asyncio.create_task(self._follow_timeline())
        cut = True
        try:
            await self._timeline
            cut = False
        except Fatal as error:
            totals.fatal = str(error)
        except asyncio.CancelledError:
            pass  # by _cut
        self._stop_measuring()
        self._give_up_waiting()
        totals.offline = sum(not connection.online for connection in self._connections)
        await self._close(cancel=cut or totals.unfinished > 0)
        for timer in self._timers.values():
            timer.cancel()
        self._tick()
        loop.remove_reader(self._pipe.fileno())
        return totals

    async def _follow_timeline(self) -> None:
        await self._connect()
        self._send(Connected())
        await self._told.wait()
        meter = self._meter
        await _sleep_until(meter.start)
        self._cpu_began = time.process_time()
        self._send(Measuring())
        await _sleep_until(meter.stop)
        self._stop_measuring()
        await self._drain()

    async def _connect(self) -> None:
        options = self._options
        begin = time.monotonic()
        for number, connection in zip(self._numbers, self._connections, strict=True):
            await _sleep_until(begin + number * options.ramp_up / options.connections)
            task = asyncio.create_task(connection.run())
            task.add_done_callback(self._on_end)
            self._tasks.append(task)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                for connection in self._connections:
                    await connection.started.wait()
        except TimeoutError:
            raise Fatal(
                f"{self._work.welcomed} of {len(self._connections)} connections are there after "
                f"{CONNECT_SECONDS:g} s, and then: {self._meter.totals.last_loss}"
            ) from None

    def _stop_measuring(self) -> None:
        meter = self._meter
        totals = meter.totals
        meter.stop = min(meter.stop, time.monotonic())
        if self._cpu_began is not None:
            totals.seconds = meter.stop - meter.start
            totals.cpu_shares = [(time.process_time() - self._cpu_began) / totals.seconds]
            self._cpu_began = None

    async def _drain(self) -> None:
        """Have what is due sent, and wait for the last replies."""
        if self._arrivals is None:
            for connection in self._connections:
                connection.supply.stop()
        else:
            self._arrive(self._arrivals, self._meter.stop)
        await self._wait_for_replies()
        if any(connection.supply.waiting for connection in self._connections):
            self._give_up_waiting()
            await self._wait_for_replies()

    async def _wait_for_replies(self) -> None:
        self._work.drain(self._connections)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._options.drain):
                await self._work.drained.wait()

    def _give_up_waiting(self) -> None:
        """Send no more requests, not even those that are due."""
        for connection in self._connections:
            self._meter.not_sent(connection.supply.stop())

    async def _close(self, *, cancel: bool) -> None:
        """Say bye everywhere; `cancel` what is unfinished on the server."""
        self._closing = True
        for connection, task in zip(self._connections, self._tasks, strict=False):
            if not connection.close(cancel=cancel):
                task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)
        for connection, task in zip(self._connections, self._tasks, strict=False):
            connection.abort()
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # What cuts it short

    def _on_end(self, task: "asyncio.Task[None]") -> None:
        if not self._closing and not task.cancelled():
            error = task.exception()
            self._cut(str(error) if isinstance(error, Fatal) else repr(error))

    def _cut(self, fatal: str | None = None) -> None:
        totals = self._meter.totals
        totals.fatal = totals.fatal or fatal
        if self._timeline is not None:
            self._timeline.cancel()

    def _obey(self) -> None:
        """Do what the coordinator says."""
        try:
            order = self._pipe.recv()
        except (EOFError, OSError):  # it is gone
            asyncio.get_running_loop().remove_reader(self._pipe.fileno())
            order = Stop()
        if isinstance(order, Measure):
            self._meter.start = max(order.start, time.monotonic())
            self._meter.stop = self._meter.start + self._options.duration
            self._told.set()
        else:
            self._cut()

    def _send(self, message: object) -> None:
        with suppress(OSError):  # it is gone, which `_obey` sees too
            self._pipe.send(message)

    # What happens at its time

    def _pace(self, arrivals: Arrivals) -> None:
        """Hand out what is due, again and again until the measured time is over."""
        now = time.monotonic()
        if now < self._meter.stop:
            self._arrive(arrivals, now)
            delay = max(PACE_SECONDS, arrivals.next_due - time.monotonic())
            loop = asyncio.get_running_loop()
            self._timers["pace"] = loop.call_later(delay, self._pace, arrivals)

    def _arrive(self, arrivals: Arrivals, now: float) -> None:
        touched: set[Connection] = set()
        for index, due in arrivals.until(now):
            connection = self._connections[index]
            if connection.started.is_set():
                if not self._backlogs[index].put(due):
                    self._meter.not_sent([due])
                touched.add(connection)
        for connection in touched:
            connection.flush()

    def _plan_tick(self) -> None:
        """Have the next full second of the run reported."""
        elapsed = time.monotonic() - self._began
        delay = round(elapsed) + 1 - elapsed
        loop = asyncio.get_running_loop()
        self._timers["tick"] = loop.call_later(delay, self._tick_and_plan)

    def _tick_and_plan(self) -> None:
        self._tick()
        self._plan_tick()

    def _tick(self) -> None:
        meter = self._meter
        now = time.monotonic()
        tick = meter.tick
        self._second = max(self._second + 1, round(now - self._began))
        tick.second = self._second
        tick.at = now - self._began
        tick.seconds = now - self._tick_began
        self._tick_began = now
        meter.tick = Tick(0, connected=tick.connected)
        self._send(tick)


async def _sleep_until(moment: float) -> None:
    """Return no earlier than at `moment` (monotonic seconds); timers may."""
    while (seconds := moment - time.monotonic()) > 0:  # noqa: ASYNC110 - a point in time
        await asyncio.sleep(seconds)


def _raise_file_limit(connections: int) -> None:
    """Allow as many open files as there are connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FILES
    if soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
