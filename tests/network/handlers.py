"""The methods of the servers in these tests."""

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

from server import Handlers, Request, demo

handlers = Handlers()
handlers.include(demo.handlers)

_runs: Counter[str] = Counter()
_poured: Counter[str] = Counter()


@handlers.method()
async def tally(request: Request, key: str) -> int:
    """Say how often `key` was tallied in this process: 1, unless a request ran twice."""
    _runs[key] += 1
    return _runs[key]


@handlers.method()
async def count_to(request: Request, key: str, limit: int) -> AsyncIterator[int]:
    """Give 1 ... limit, in several turns of the loop; a second run gives larger numbers."""
    _runs[key] += 1
    for number in range(1, limit + 1):
        await asyncio.sleep(0)
        yield number + 1000 * (_runs[key] - 1)


@handlers.method()
async def pour(request: Request, key: str, count: int, size: int) -> AsyncIterator[str]:
    """Give `count` results of `size` characters, as fast as they are taken."""
    for _ in range(count):
        _poured[key] += 1
        yield "x" * size


@handlers.method()
async def poured(request: Request, key: str) -> int:
    """Say how many results `pour` has given for `key`."""
    return _poured[key]


@handlers.method()
async def second_time(request: Request) -> int:
    """Wait until the server is killed; end in the next attempt."""
    if request.attempt == 1:
        await asyncio.Event().wait()
    return request.attempt


@handlers.method()
async def census(request: Request) -> dict[str, int]:
    """Count what a connection must not leave behind in the server: its tasks and sockets."""
    gc.collect()  # a task that nobody holds says so now, in the log
    descriptors = Path("/proc/self/fd")
    links = [_target(link) for link in descriptors.iterdir()]
    return {
        "tasks": len(asyncio.all_tasks()),
        "sockets": sum(target.startswith("socket:") for target in links),
    }


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:  # the descriptor of the listing itself
        return ""
