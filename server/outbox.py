"""What waits to be written to one connection: frames in order, joined into one message.

Bounded by bytes: `full` tells producers to wait for `room`. The writer (gateway.py) takes all
that is there at once; that joining is where throughput comes from.
"""

import asyncio
from typing import Final

MESSAGE_BYTES_MAX: Final = 256 * 1024
"""One message is cut off here, so that a long backlog reaches the client in pieces."""
OVERFLOW_FACTOR: Final = 8
"""Replies to a client's own frames are not held back; at this many times the bound it is cut."""


class Outbox:
    """The outgoing frames of one connection; `limit_bytes` bounds what producers may pile up.

    Replies such as `accepted` go in even when it is full. Once they exceed `limit_bytes` eight
    times over, `overflowed` is set and the connection is to be closed as a slow consumer.
    """

    __slots__ = ("_frames", "_limit_bytes", "_ready", "_room", "_size", "closed", "overflowed")

    def __init__(self, limit_bytes: int) -> None:
        self._frames: list[bytes] = []
        self._size = 0
        self._limit_bytes = limit_bytes
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
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

    def put(self, frame: bytes) -> None:
        """Add `frame`; never blocks."""
        self._frames.append(frame)
        self._size += len(frame)
        self._ready.set()
        if self._size >= self._limit_bytes:
            self._room.clear()
            if self._size >= self._limit_bytes * OVERFLOW_FACTOR:
                self.overflowed = True

    async def room(self) -> None:
        """Wait until the outbox is no longer full, or closed."""
        await self._room.wait()

    async def wait(self) -> None:
        """Wait until there is something to take, or the outbox is closed."""
        await self._ready.wait()

    def take(self) -> bytes:
        """Return the next message: waiting frames joined by newlines; empty when there is none."""
        frames = self._frames
        if self._size <= MESSAGE_BYTES_MAX:
            message = b"\n".join(frames)
            frames.clear()
            self._size = 0
        else:
            size = 0
            count = 0
            for frame in frames:
                size += len(frame)
                count += 1
                if size >= MESSAGE_BYTES_MAX:
                    break
            message = b"\n".join(frames[:count])
            del frames[:count]
            self._size -= size
        if not frames and not self.closed:
            self._ready.clear()
        if self._size < self._limit_bytes:
            self._room.set()
        return message

    def close(self) -> None:
        """Let everybody who waits go on: the connection is gone."""
        self.closed = True
        self._ready.set()
        self._room.set()
