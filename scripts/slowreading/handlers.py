"""The methods of the server under test: results in great amounts, kept or live, and a count."""

import asyncio
from collections.abc import AsyncIterator

from server import Handlers, Request, demo

handlers = Handlers()
handlers.include(demo.handlers)

_produced = {"bytes": 0, "running": 0}


@handlers.method()
async def kept(request: Request, count: int, size: int, seconds: float) -> AsyncIterator[str]:
    """Give `count` results of `size` characters in `seconds`, or more slowly if held back."""
    async for text in _pour(count, size, seconds):
        yield text


@handlers.method(live=True)
async def live(request: Request, count: int, size: int, seconds: float) -> AsyncIterator[str]:
    """Do the same with results that nobody keeps."""
    async for text in _pour(count, size, seconds):
        yield text


@handlers.method()
async def produced(request: Request) -> dict[str, int]:
    """Say how much was produced so far, and how many requests still produce."""
    return _produced


async def _pour(count: int, size: int, seconds: float) -> AsyncIterator[str]:
    text = "x" * size
    _produced["running"] += 1
    try:
        for _ in range(count):
            if seconds:
                await asyncio.sleep(seconds / count)
            _produced["bytes"] += size
            yield text
    finally:
        _produced["running"] -= 1
