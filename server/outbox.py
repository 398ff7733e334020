"""What waits to be written to one connection: frames in order, joined into one message.

Bounded by bytes: `full` tells producers to wait for `room`. The writer (gateway.py) takes all
that is there at once; that joining is where throughput comes from.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Raw

from protocol.codec import encode, encode_message
from protocol.frames import ServerFrame
from server.session import FRAME_BYTES

MESSAGE_BYTES_MAX: Final = 256 * 1024
"""One message is cut off here, so that a long backlog reaches the client in pieces."""
OVERFLOW_FACTOR: Final = 8
"""Replies to a client's own frames are not held back; at this many times the bound it is cut."""


class Outbox:
    """The outgoing frames of one connection; `limit_bytes` bounds what producers may pile up.

    Frames are encoded when they are taken, all together; until then each counts for the size it
    was put in with. Replies such as `accepted` go in even when it is full. Once they exceed
    `limit_bytes` eight times over, `overflowed` is set and the connection is to be closed as a
    slow consumer. `wake` is called when there is something to take again; one task may wait for
    room.
    """

    __slots__ = (
        "_frames",
        "_limit_bytes",
        "_overflow_bytes",
        "_room",
        "_size",
        "_sizes",
        "_wake",
        "closed",
        "overflowed",
    )

    def __init__(self, limit_bytes: int, wake: Callable[[], None]) -> None:
        self._frames: list[ServerFrame | Raw] = []
        self._sizes: list[int] = []
        self._size = 0
        self._limit_bytes = limit_bytes
        self._overflow_bytes = limit_bytes * OVERFLOW_FACTOR
        self._wake = wake
        self._room: asyncio.Future[None] | None = None
        self.closed = False
        self.overflowed = False

    @property
    def full(self) -> bool:
        """Tell whether producers of results must wait."""
        return self._size >= self._limit_bytes

    @property
    def size(self) -> int:
        """Bytes waiting to be written."""
        return self._size

    def put(self, frame: ServerFrame | Raw, size: int = FRAME_BYTES) -> None:
        """Add `frame`, which takes about `size` bytes; a Raw holds encoded ones. Never blocks."""
        self._frames.append(frame)
        self._sizes.append(size)
        self._grow(size)

    def put_all(self, frames: Sequence[ServerFrame], sizes: Sequence[int]) -> None:
        """Add `frames`, which take about `sizes` bytes; never blocks."""
        self._frames += frames
        self._sizes += sizes
        self._grow(sum(sizes))

    def _grow(self, size: int) -> None:
        if not self._size:
            self._wake()
        self._size += size
        if self._size >= self._overflow_bytes:
            self.overflowed = True

    async def room(self) -> None:
        """Wait until the outbox is no longer full, or closed."""
        while self.full and not self.closed:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def take(self) -> bytes:
        """Return the next message: waiting frames joined by newlines; empty when there is none."""
        frames = self._frames
        if self._size <= MESSAGE_BYTES_MAX:
            message = encode_message(frames)
            frames.clear()
            self._sizes.clear()
            self._size = 0
        else:
            message = self._take_some()
        if self._room is not None and not self.full:
            self._let_go()
        return message

    def _take_some(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        for frame in self._frames:
            parts.append(encode(frame))
            size += len(parts[-1])
            if size >= MESSAGE_BYTES_MAX:
                break
        count = len(parts)
        self._size -= sum(self._sizes[:count])
        del self._frames[:count]
        del self._sizes[:count]
        return b"\n".join(parts)

    def close(self) -> None:
        """Let everybody who waits go on, and wake nobody any more: the connection is gone."""
        self.closed = True
        self._wake = _nobody
        self._let_go()

    def _let_go(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None


def _nobody() -> None:
    pass
