"""Methods that log, each in one of the ways handlers can run."""

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import structlog

from server import Handlers, Request, demo

handlers = Handlers()
handlers.include(demo.handlers)

_log = structlog.get_logger()
_standard = logging.getLogger("shop")


@handlers.method()
async def quick(request: Request) -> None:
    _log.info("from_handler")
    _standard.info("from_handler")


@handlers.method()
async def waiting(request: Request) -> None:
    await asyncio.create_task(_in_a_task())
    _log.info("from_handler")


async def _in_a_task() -> None:
    _standard.info("from_handler")


@handlers.method()
async def leave_behind(request: Request) -> None:
    """Ends before what it has begun."""
    _left.add(asyncio.create_task(_left_behind()))


_left: set[asyncio.Task[None]] = set()


async def _left_behind() -> None:
    await asyncio.sleep(0.05)
    _log.info("left_behind")


@handlers.method()
async def stream(request: Request) -> AsyncIterator[int]:
    _log.info("from_handler")
    yield 1
    _standard.info("from_handler")


@handlers.method()
def in_thread(request: Request) -> None:
    _log.info("from_handler")
    _standard.info("from_handler")


@handlers.method(process=True)
def in_process(request: Request) -> None:
    _log.info("from_handler")
    _standard.info("from_handler")


@handlers.method()
async def own_fields(request: Request) -> None:
    """Fields of its own win."""
    _log.info("from_handler", n="mine")


@handlers.method()
def wait_in_thread(request: Request, gate: str) -> None:
    _wait(gate, "thread")


@handlers.method(process=True)
def wait_in_process(request: Request, gate: str) -> None:
    _wait(gate, "process")


def _wait(gate: str, name: str) -> None:
    Path(f"{gate}.{name}").touch()
    while not Path(gate).exists():
        time.sleep(0.01)


@handlers.method(timeout=0.1)
async def never_ends(request: Request) -> None:
    await asyncio.Event().wait()


@handlers.method()
async def shout(request: Request, count: int, size: int) -> None:
    for number in range(count):
        _log.info("shout", number=number, text="x" * size)


@handlers.method(max_attempts=1)
async def last_words(request: Request) -> None:
    """Takes the whole server down, right after a line."""
    _log.info("last_words")
    os.kill(os.getpid(), signal.SIGKILL)
