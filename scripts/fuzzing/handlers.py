"""The methods of the server that is fuzzed; `look` lets the fuzzer see into the process."""

import asyncio
import gc
import os
import threading
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from server import Handlers, Request, RequestError

handlers = Handlers()

WATCHED = ("Connection", "Link", "Session", "Worker", "Outbox", "StreamReader")
"""Types of which there must be no more in the end than in the beginning."""


@handlers.method()
async def echo(request: Request, text: str) -> str:
    return text


@handlers.method()
async def anything(request: Request, a: Any = None, b: int = 0, c: list[str] | None = None) -> Any:
    return [a, b, c]


@handlers.method()
async def count(request: Request, upto: int, size: int = 0) -> AsyncIterator[list[Any]]:
    """Give `upto` results of about `size` bytes."""
    for number in range(min(upto, 1000)):
        yield [number, "x" * min(size, 10_000)]


@handlers.method(live=True)
async def ticks(request: Request, upto: int) -> AsyncIterator[int]:
    for number in range(min(upto, 100)):
        yield number


@handlers.method()
async def pause(request: Request, seconds: float = 0.01) -> None:
    await asyncio.sleep(min(max(seconds, 0), 0.05))


@handlers.method(replay="if_not_started", timeout=0.3)
async def endless(request: Request) -> None:
    await asyncio.Event().wait()


@handlers.method()
def thread(request: Request, text: str = "") -> str:
    return text[::-1]


@handlers.method()
async def fail(request: Request, details: Any = None) -> None:
    raise RequestError("sold_out", "as asked for", details)


@handlers.method(scope="admin")
async def secret(request: Request) -> str:
    return "for admins"


@handlers.method(scope="look")
async def look(request: Request, collect: bool = False) -> dict[str, int]:
    """Return how many tasks, threads and files there are, and objects of our own types.

    With `collect` only those that are in use.
    """
    if collect:
        gc.collect()
    found = Counter(type(one).__name__ for one in gc.get_objects())
    return {
        "tasks": len(asyncio.all_tasks()),
        "threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - no more than their number
    } | {name: found[name] for name in WATCHED}
