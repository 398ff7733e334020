"""What to plan a machine by: memory and disk, against the bytes that are held.

empty server            -> its memory, against a bare server's
N requests done, again  -> growth of the journal's files / N, against the texts in them
requests that wait      -> growth of its memory / their number, against their texts
"""

from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Final

import uvloop

from protocol import frames as wire

from .context import WINDOW_MIN, Context
from .dialects import Violation
from .load import Point, fill
from .requests import LargeRequests
from .scenario import NotMeasured, Outcome
from .scoreboard import Figure
from .servers import Server, on_core
from .stats import Spread
from .tables import aligned
from .talk import Talk

FILLING: Final = Point(50, 16)
FINISHED: Final = 50_000
"""Requests between two looks at the files: their log is trimmed many times meanwhile."""
WAITING_SESSIONS: Final = 32
WAITING_BYTES: Final = 1024
SLEEP: Final = wire.Raw(b'{"seconds":3600}')
EMPTY: Final = "memory of an empty server"
DISK: Final = "disk for a finished request"
WAITING: Final = "memory of a waiting request of 1 KiB"
_HEAD: Final = ("what", "bytes", "compared with")


class Capacity:
    """See scenario.Scenario."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._ours: dict[str, list[float]] = defaultdict(list)
        self._other: dict[str, list[float]] = defaultdict(list)

    def repeat(self) -> None:
        context = self._context
        with context.echo() as server:
            self._other[EMPTY].append(_private_bytes(server))
            server.kill()
        with context.ours(connections=2 * FILLING.connections, window=WINDOW_MIN) as server:
            self._ours[EMPTY].append(_private_bytes(server))
            with on_core(context.load_core):
                self._wait(server)
                self._finish(server)
            server.kill()

    def _wait(self, server: Server) -> None:
        """Measure requests that wait behind one that does not end."""
        before = _private_bytes(server)
        waiting = uvloop.run(_put_to_wait(server, self._context.tokens(WAITING_SESSIONS)))
        server.settle()
        self._ours[WAITING].append((_private_bytes(server) - before) / waiting)
        self._other[WAITING].append(WAITING_BYTES)

    def _finish(self, server: Server) -> None:
        """Measure what is left on disk of requests that were done and acknowledged."""
        requests = self._context.requests
        sizes: list[int] = []
        for _ in range(2):
            dialects = self._context.queue_dialects(FILLING.connections)
            uvloop.run(fill(server.url, dialects, FILLING.window, FINISHED))
            server.settle()
            sizes.append(_files_bytes(self._context.directory))
        # What the journal takes whatever was done is in the first size, too.
        self._ours[DISK].append((sizes[1] - sizes[0]) / FINISHED)
        self._other[DISK].append(len(requests.frames[0]) + len(requests.data[0]))

    def outcome(self) -> Outcome:
        names = (EMPTY, WAITING, DISK)
        lines = [
            (name, f"{median(self._ours[name]):,.0f}", f"{median(self._other[name]):,.0f}")
            for name in names
        ]
        data = {
            name: {"ours": median(self._ours[name]), "other": median(self._other[name])}
            for name in names
        }
        figures = [
            self._figure(EMPTY, "bare server", 2**20, "MiB"),
            self._figure(WAITING, "its text", 1, "bytes"),
            self._figure(DISK, "its request and result", 1, "bytes"),
        ]
        return Outcome(figures, aligned(_HEAD, lines, left=1), data)

    def _figure(self, name: str, other: str, divisor: int, unit: str) -> Figure:
        ours, theirs = self._ours[name], self._other[name]
        digits = 1 if divisor > 1 else 0
        return Figure(
            name,
            f"{median(ours) / divisor:,.{digits}f} {unit}",
            f"{other} {median(theirs) / divisor:,.{digits}f} {unit}",
            Spread.of_ratios(ours, theirs),
        )


async def _put_to_wait(server: Server, tokens: list[str]) -> int:
    """Have as many requests wait as the windows of so many sessions take; return how many."""
    waiting = WINDOW_MIN - 1
    requests = LargeRequests(WAITING_BYTES)
    requests.grow(waiting)
    talks = [await Talk.open(server.url) for _ in tokens]
    for talk, token in zip(talks, tokens, strict=True):
        await talk.ask([wire.Hello(token=token)])
        asked = [wire.Request("sleeper", "sleep", SLEEP)]
        asked += [
            wire.Request(name, "echo", wire.Raw(b'{"text":%b}' % text))
            for name, text in zip(requests.ids, requests.data, strict=True)
        ]
        for answer in await talk.ask(asked, len(asked)):
            if not isinstance(answer, wire.Accepted):
                raise Violation(f"a request was to be accepted, but this came: {answer}")
    for talk in talks:
        talk.abort()
    return waiting * len(tokens)


def _private_bytes(server: Server) -> int:
    try:
        return server.private_bytes()
    except OSError as error:
        raise NotMeasured(f"this system does not tell the memory of a process: {error}") from None


def _files_bytes(directory: Path) -> int:
    """Return the size of the journal without its write-ahead log, which is of bounded size."""
    files = list(directory.glob("journal-*.db"))
    if not files:
        raise NotMeasured("the journal is not a file")
    return sum(path.stat().st_size for path in files)
