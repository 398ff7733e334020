"""How many lines of one kind get into the log; the rest is counted.

    line -> of its kind LINES_MAX in INTERVAL_SECONDS pass, further ones are only counted
    interval over, and some were counted -> one line `suppressed` says how many

A kind of ours is an event, with its code or method where it has one: names that are in our
source, so they are few. A kind of anybody else is a logger and a level. Beyond KINDS_MAX kinds
at one time all further ones are one. Debug lines pass: who asks for them wants them all.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from structlog import DropEvent
from structlog.typing import EventDict

from server.log_events import EVENTS, LINES_MAX

INTERVAL_SECONDS: Final = 10.0
OTHERS_LINES_MAX: Final = 10_000
"""Of a logger that is not ours: what handlers log is theirs, but has a bound too."""
KINDS_MAX: Final = 512

_OURS: Final = "server"
_LIBRARIES: Final = frozenset({"asyncio", "websockets", "pymongo", "motor"})


class Kind(NamedTuple):
    """What is counted together."""

    level: str
    name: str
    detail: object = None


_REST: Final = Kind("warning", "others")


class _Interval:
    __slots__ = ("began_at", "lines", "suppressed")

    def __init__(self, began_at: float) -> None:
        self.began_at = began_at
        self.lines = 0
        self.suppressed = 0


class Limiter:
    """Decides which lines pass, in any thread.

    `tell(level, fields)` writes a line about those that did not. `suppressed` counts them since
    the start by name of their kind, `suppressed_total` all of them.
    """

    def __init__(
        self,
        tell: Callable[[str, Mapping[str, Any]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.suppressed: dict[str, int] = {}
        self.suppressed_total = 0
        self._tell = tell
        self._clock = clock
        self._lock = threading.Lock()
        self._intervals: dict[Kind, _Interval] = {}

    def __call__(self, logger: Any, _method: str, event: EventDict) -> EventDict:
        """Be a processor of structlog: pass `event` on, or raise DropEvent."""
        level = event["level"]
        if level == "debug":
            return event
        name = getattr(logger, "name", "")
        if _root(name) == _OURS:
            text = str(event["event"])
            known = EVENTS.get(text)
            lines = LINES_MAX if known is None else known.lines
            detail = event.get("code") or event.get("status") or event.get("method")
            kind = Kind(level, text, detail)
        else:
            lines = OTHERS_LINES_MAX
            kind = Kind(level, name or "handlers")
        if not self.take(kind, lines):
            raise DropEvent
        return event

    def filter(self, record: logging.LogRecord) -> bool:
        """Be a filter of `logging`: tell whether the line passes."""
        if record.levelno <= logging.DEBUG:
            return True
        lines = LINES_MAX if _root(record.name) in _LIBRARIES else OTHERS_LINES_MAX
        return self.take(Kind(record.levelname.lower(), record.name), lines)

    def take(self, kind: Kind, lines_max: int) -> bool:
        """Tell whether a line of that kind passes."""
        now = self._clock()
        over: list[tuple[Kind, _Interval]] = []
        with self._lock:
            interval = self._intervals.get(kind)
            if interval is None and len(self._intervals) >= KINDS_MAX:
                kind, lines_max = _REST, OTHERS_LINES_MAX
                interval = self._intervals.get(kind)
            if interval is None or now - interval.began_at >= INTERVAL_SECONDS:
                if interval is not None and interval.suppressed:
                    over.append((kind, interval))
                interval = self._intervals[kind] = _Interval(now)
            passes = interval.lines < lines_max
            if passes:
                interval.lines += 1
            else:
                interval.suppressed += 1
                self.suppressed_total += 1
                name = kind.name
                if name not in self.suppressed and len(self.suppressed) >= KINDS_MAX:
                    name = _REST.name
                self.suppressed[name] = self.suppressed.get(name, 0) + 1
        self._tell_of(over, now)
        return passes

    def sweep(self) -> None:
        """Tell of what was suppressed in intervals that are over; to be called every second."""
        now = self._clock()
        with self._lock:
            over = [
                (kind, interval)
                for kind, interval in self._intervals.items()
                if now - interval.began_at >= INTERVAL_SECONDS
            ]
            for kind, _ in over:
                del self._intervals[kind]
        self._tell_of(over, now)

    def close(self) -> None:
        """Tell of all that was suppressed and not told of."""
        with self._lock:
            left = list(self._intervals.items())
            self._intervals.clear()
        self._tell_of(left, self._clock())

    def _tell_of(self, intervals: "list[tuple[Kind, _Interval]]", now: float) -> None:
        for kind, interval in intervals:
            if interval.suppressed:
                fields = {
                    "of": kind.name,
                    "detail": kind.detail,
                    "count": interval.suppressed,
                    "seconds": round(now - interval.began_at, 1),
                }
                self._tell(kind.level, {k: v for k, v in fields.items() if v is not None})


def _root(name: str) -> str:
    return name.partition(".")[0]
