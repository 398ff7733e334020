"""One request as its client sees it: which of its results have come, and how it ended. No I/O.

An event counts once per (attempt, index); a higher attempt drops the partial results of the
older one; results wait in `items` until somebody takes them.
"""

from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import Final

from msgspec import UNSET

from protocol import frames as wire
from protocol.client_errors import RESULTS_LOST, ClientError, RequestFailed

ITEM_BYTES: Final = 128
"""What a result is counted for beside its data, so that tiny ones add up (as the server does)."""


class Phase(IntEnum):
    """Where a request is: not with the server, perhaps there, certainly there, or ended."""

    WAITING = 0
    SENT = 1
    ACCEPTED = 2
    ENDED = 3


class Buffer:
    """The size of all results of a session that nobody has taken yet."""

    __slots__ = ("limit_bytes", "on_room", "size_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.size_bytes = 0
        self.on_room: Callable[[], None] | None = None

    @property
    def full(self) -> bool:
        """Tell whether no more is to be read from the server for now."""
        return self.size_bytes >= self.limit_bytes

    def remove(self, size_bytes: int) -> None:
        """Count less, and call `on_room` once when half of the limit is free."""
        self.size_bytes -= size_bytes
        if self.on_room is not None and self.size_bytes <= self.limit_bytes // 2:
            on_room, self.on_room = self.on_room, None
            on_room()


class Call:
    """The state of one request. `frame` is emptied once it need not be sent again.

    `doubtful` tells that the server may have it although it has not said so; `expected` is the
    index of the result that comes next; `last` is the newest result of the attempt.
    """

    __slots__ = (
        "attempt",
        "buffer",
        "cancelling",
        "doubtful",
        "dropped",
        "error",
        "expected",
        "frame",
        "id",
        "items",
        "last",
        "live",
        "n",
        "number",
        "phase",
        "suspect",
        "wakeups",
    )

    def __init__(
        self,
        id: str,  # noqa: A002 - the wire's name
        number: int,
        frame: bytes,
        buffer: Buffer,
    ) -> None:
        self.id = id
        self.number = number
        self.frame = frame
        self.buffer = buffer
        self.phase = Phase.WAITING
        self.doubtful = False
        self.cancelling = False
        self.n: int | None = None
        self.attempt = 0
        self.expected = 0
        self.live = False
        # Numbered events were skipped while this request was unfinished.
        self.suspect = False
        self.dropped = False
        self.items: deque[tuple[int, bytes]] | None = None
        self.last: bytes | None = None
        self.error: ClientError | None = None
        self.wakeups: list[Callable[[], None]] = []

    @property
    def ended(self) -> bool:
        """Tell whether no further result will come."""
        return self.phase is Phase.ENDED

    # What the server says

    def result(self, frame: wire.Result, data: bytes) -> None:
        """Take a result, unless it came before."""
        if frame.attempt != self.attempt:
            if frame.attempt < self.attempt:
                return
            self._restart(frame.attempt)
        index = frame.index
        if index < self.expected:
            return
        if not frame.seq:
            self.live = True
        self.expected = index + 1
        self.last = data
        if self.dropped:
            return
        if self.items is None:
            self.items = deque()
        self.items.append((index, data))
        self.buffer.size_bytes += len(data) + ITEM_BYTES
        if self.wakeups:
            self._wake()

    def done(self, frame: wire.Done) -> None:
        """End it, well when all its results have come."""
        if frame.attempt > self.attempt:
            self._restart(frame.attempt)
        missing = frame.results - self.expected
        # Results of live methods are not numbered: if there was none, nothing tells that they
        # were live but that no number is missing.
        if missing and not self.live and (self.expected or self.suspect):
            self.end(lost_results(self.id, f"{missing} of its {frame.results} results"))
        else:
            self.end(None)

    def failed(self, frame: wire.Error) -> None:
        """End it as the server says, or refuse it."""
        if frame.attempt is not None and frame.attempt > self.attempt:
            self._restart(frame.attempt)
        self.end(failure(self.id, frame))

    def _restart(self, attempt: int) -> None:
        self._clear()
        self.attempt = attempt
        self.expected = 0
        self.last = None

    def end(self, error: ClientError | None) -> None:
        """End it; the results that have come stay."""
        self.phase = Phase.ENDED
        self.error = error
        if self.wakeups:
            self._wake()

    def _wake(self) -> None:
        wakeups, self.wakeups = self.wakeups, []
        for wake in wakeups:
            wake()

    # What its consumer does

    def take(self) -> tuple[int, bytes] | None:
        """Return index and data of the next result that has come, or None."""
        if not self.items:
            return None
        item = self.items.popleft()
        self.buffer.remove(len(item[1]) + ITEM_BYTES)
        return item

    def drop(self) -> None:
        """Keep no results any more but the last one."""
        self.dropped = True
        self._clear()

    def _clear(self) -> None:
        if self.items:
            size_bytes = sum(len(data) + ITEM_BYTES for _, data in self.items)
            self.items = None
            self.buffer.remove(size_bytes)


def failure(request_id: str, frame: wire.Error) -> RequestFailed:
    """Return the error that `frame` tells of."""
    details = None if frame.details is UNSET else frame.details
    return RequestFailed(
        frame.code, frame.message, id=request_id, details=details, retryable=frame.retryable
    )


def lost_results(request_id: str, what: str) -> RequestFailed:
    """Return the error for results that will never come."""
    return RequestFailed(
        RESULTS_LOST,
        f"{what} are gone: they expired, or were acknowledged by another program",
        id=request_id,
    )
