"""When requests are due: what is to be sent now, and what has to wait for room. No I/O.

    closed loop: whenever there is room, as many as there is room for, due now
    open loop:   request i is due at start + i / rate, whatever the server does; it belongs to
                 connection i mod connections, and waits in that one's bounded backlog

A latency counts from the time a request was due. So a server that stalls is charged for every
request it kept from being sent ("coordinated omission").
"""

from collections import deque
from collections.abc import Iterator
from itertools import repeat
from typing import Final, Protocol

BACKLOG_MAX: Final = 100_000
"""Requests of one process that may wait for room; what comes beyond is not sent, but counted."""


class Supply(Protocol):
    """Where one connection's requests come from."""

    def take(self, room: int, now: float) -> list[float]:
        """Return when the next requests were due, `room` of them at most."""
        ...

    def stop(self) -> list[float]:
        """Have no more requests; return when those were due that wait."""
        ...

    @property
    def waiting(self) -> int:
        """How many are due and were not taken."""
        ...


class ClosedLoop:
    """A request is due the moment there is room for it."""

    waiting = 0

    def __init__(self) -> None:
        self._stopped = False

    def take(self, room: int, now: float) -> list[float]:
        return [] if self._stopped else list(repeat(now, room))

    def stop(self) -> list[float]:
        self._stopped = True
        return []


class Backlog:
    """Requests that came due, in order, until there is room; at most `limit` of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._due: deque[float] = deque()

    def put(self, due: float) -> bool:
        """Add a request; tell whether there was a place for it."""
        if len(self._due) >= self._limit:
            return False
        self._due.append(due)
        return True

    def take(self, room: int, now: float) -> list[float]:
        due = self._due
        return [due.popleft() for _ in range(min(room, len(due)))]

    def stop(self) -> list[float]:
        due = list(self._due)
        self._due.clear()
        return due

    @property
    def waiting(self) -> int:
        return len(self._due)


class Arrivals:
    """Fixed times, `rate` a second, dealt to `connections` in turn."""

    def __init__(self, start: float, rate: float, connections: int) -> None:
        self._start = start
        self._rate = rate
        self._connections = connections
        self._next = 0

    @property
    def next_due(self) -> float:
        """When the next request is due."""
        return self._start + self._next / self._rate

    def until(self, now: float) -> Iterator[tuple[int, float]]:
        """Yield (connection, due) for every request that came due since the last call."""
        while (due := self.next_due) <= now:
            yield self._next % self._connections, due
            self._next += 1
