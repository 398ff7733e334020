"""Memory of an idle session, against an idle connection of a bare server.

    empty server -> N connections, which then say nothing -> settle -> (memory - empty) / N

Memory is what the process has written to and shares with nobody (Private_Dirty of
/proc/PID/smaps_rollup): the heap, without code pages, and without the kernel's socket buffers.
Ours has authenticated every connection and made a session for it.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import median
from typing import Final

import uvloop

from .context import Context
from .dialects import Dialect
from .load import Crowd
from .scenario import NotMeasured, Outcome
from .scoreboard import Figure, Target
from .servers import Server, on_core
from .stats import Spread
from .tables import aligned

TARGET: Final = Target(1.3, at_least=False)
CALM_SECONDS: Final = 1.5
"""More than the second after which our server does its housekeeping."""
ECHO: Final = "echo on uvloop"
OURS: Final = "ours"
_HEAD: Final = ("idle connections", "server", "KiB each (min-max)")


class Memory:
    """See scenario.Scenario."""

    def __init__(self, context: Context) -> None:
        self._context = context
        sizes = sorted(context.sizes.idle_sessions)
        most = context.connections_max
        self._missed = [size for size in sizes if size > most]
        self._sizes = [size for size in sizes if size <= most]
        if self._missed and most > 0:
            self._sizes.append(most)
        self._kibibytes: dict[tuple[int, str], list[float]] = defaultdict(list)

    def repeat(self) -> None:
        context = self._context
        if not self._sizes:
            raise NotMeasured("too few open files are allowed")
        most = self._sizes[-1]
        with context.echo() as server:
            self._measure(server, ECHO, context.echo_dialects(most))
        with context.ours(connections=most) as server:
            self._measure(server, OURS, context.queue_dialects(most))

    def _measure(self, server: Server, name: str, dialects: Sequence[Dialect]) -> None:
        try:
            empty = server.private_bytes()
        except OSError as error:
            raise NotMeasured(
                f"this system does not tell the memory of a process: {error}"
            ) from None

        def note(connections: int) -> None:
            each = (server.private_bytes() - empty) / connections
            self._kibibytes[connections, name].append(each / 1024)

        with on_core(self._context.load_core):
            uvloop.run(_grow(server, dialects, self._sizes, note))
        server.kill()  # what it would do at its end is not measured here

    def outcome(self) -> Outcome:
        lines = [
            (f"{size:,}" if name == ECHO else "", name, str(Spread.of(self._kibibytes[size, name])))
            for size in self._sizes
            for name in (ECHO, OURS)
        ]
        data = {
            "connections": [
                {
                    "count": size,
                    "echo_kibibytes": median(self._kibibytes[size, ECHO]),
                    "ours_kibibytes": median(self._kibibytes[size, OURS]),
                }
                for size in self._sizes
            ]
        }
        figures = [self._figure(size) for size in self._sizes]
        missed = [
            Figure(f"memory of an idle session, of {size:,}", note="too few open files are allowed")
            for size in self._missed
        ]
        return Outcome(figures + missed, aligned(_HEAD, lines, left=2), data)

    def _figure(self, size: int) -> Figure:
        ours = self._kibibytes[size, OURS]
        echo = self._kibibytes[size, ECHO]
        return Figure(
            f"memory of an idle session, of {size:,}",
            f"{median(ours):.1f} KiB",
            f"bare connection {median(echo):.1f} KiB",
            Spread.of_ratios(ours, echo),
            TARGET,
        )


async def _grow(
    server: Server, dialects: Sequence[Dialect], sizes: Sequence[int], note: Callable[[int], None]
) -> None:
    """Open connections, and call `note` at each of `sizes` when the server has calmed down."""
    crowd = Crowd(server.url)
    try:
        opened = 0
        for size in sizes:
            await crowd.connect(dialects[opened:size], window=1)
            opened = size
            await asyncio.sleep(CALM_SECONDS)
            await asyncio.to_thread(server.settle)
            crowd.check()
            note(size)
    finally:
        crowd.abort()
