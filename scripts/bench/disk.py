"""What the disk itself takes to make a write durable: the least that any journal must pay.

`overwrite` writes into a file that has its size already, `append` makes a file grow. Growing
costs more (the file system commits the new size as well), and a journal need not pay for it:
SQLite's write-ahead log starts again at the front of its file after each of its checkpoints, and
any other could reserve space. So `overwrite` is what ours is compared with.
"""

import os
import time
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

ROUNDS: Final = 5
WRITES: Final = 20
"""Writes of each kind in one round."""
SMALL_BYTES: Final = 4096
"""One page: the least that reaches the disk, and more than the record of one request."""


class Syncs(NamedTuple):
    """Seconds of one write and its `fdatasync`, each."""

    overwrite_seconds: float
    append_seconds: float


def probe(
    directory: Path, size: int = SMALL_BYTES, *, rounds: int = ROUNDS, writes: int = WRITES
) -> Syncs:
    """Measure the disk below `directory` with writes of `size` bytes.

    Returns the least of the rounds' medians: after a pause the first round is often twice as slow
    as the others, and what else the disk does only ever adds.
    """
    # One kind after the other: in turn, every overwrite would wait for what an append has begun.
    every = [
        Syncs(
            _median_seconds(directory, size, writes, reserved=True),
            _median_seconds(directory, size, writes, reserved=False),
        )
        for _ in range(rounds)
    ]
    return Syncs(*map(min, zip(*every, strict=True)))


def _median_seconds(directory: Path, size: int, writes: int, *, reserved: bool) -> float:
    data = os.urandom(size)
    path = directory / "disk.probe"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    times: list[float] = []
    try:
        if reserved:
            os.pwrite(descriptor, bytes(size * writes), 0)
        os.fsync(descriptor)
        for number in range(writes):
            began = time.perf_counter()
            os.pwrite(descriptor, data, number * size)
            _sync(descriptor)
            times.append(time.perf_counter() - began)
    finally:
        os.close(descriptor)
        path.unlink()
    return median(times)


_sync = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync
