"""Methods that fail in every way, with params and results that nobody may find in a log."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from server import Handlers, Request, RequestError, demo

handlers = Handlers()
handlers.include(demo.handlers)


@handlers.method()
async def crash(request: Request, text: str) -> None:
    """Fails deep inside, with what must not be told in local variables of every frame."""
    kept = text * 2
    raise ValueError(f"a text of {len(kept)} characters")


@handlers.method()
async def crash_later(request: Request, text: str) -> str:
    await asyncio.sleep(0)
    return {"text": text}["nothing"]


@handlers.method()
def crash_in_thread(request: Request, text: str) -> str:
    return {"text": text}["nothing"]


@handlers.method(process=True)
def crash_in_process(request: Request, text: str) -> str:
    return {"text": text}["nothing"]


@handlers.method(process=True)
def die_in_process(request: Request, text: str) -> None:
    if request.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)


@handlers.method()
async def refuse(request: Request, text: str) -> None:
    raise RequestError("sold_out", text, {"text": text})


@handlers.method()
async def refuse_badly(request: Request, text: str) -> None:
    raise RequestError("sold_out", text, {text: {text, 1}})


@handlers.method()
async def no_json(request: Request, text: str) -> Any:
    return {text: {text}, "more": object()}


@handlers.method()
async def half_a_character(request: Request, text: str) -> str:
    return f"{text}\ud800"


@handlers.method()
async def too_much(request: Request, text: str) -> AsyncIterator[str]:
    for _ in range(10_000):
        yield text * 100


@handlers.method()
async def endless(request: Request, text: str) -> None:
    await asyncio.Event().wait()


@handlers.method(replay="never")
async def once(request: Request, text: str, path: str) -> None:
    Path(path).touch()
    await asyncio.Event().wait()


@handlers.method()
async def slow(request: Request, text: str, gate: str) -> str:
    while not Path(gate).exists():
        await asyncio.sleep(0.01)
    return text


@handlers.method()
async def block_the_loop(request: Request, text: str) -> str:
    """What asyncio tells of in its debug mode, with what it was called with."""

    time.sleep(0.2)  # noqa: ASYNC251 - that is the point
    return text
