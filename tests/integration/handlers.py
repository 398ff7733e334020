"""The methods of the servers in these tests: the demo's, and some that no good server offers."""

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from server import Handlers, Request, RequestError, demo

handlers = Handlers()
handlers.include(demo.handlers)


@handlers.method()
async def unserialisable(request: Request) -> Any:
    return {1, 2, object()}


@handlers.method()
async def hoard(request: Request, mebibytes: int, gate: str) -> int:
    """Hold that much memory until a file is there."""
    held = bytearray(b"x") * (mebibytes * 2**20)
    await _wait_for(gate)
    return len(held)


@handlers.method(live=True)
async def torrent(request: Request, gate: str) -> AsyncIterator[str]:
    """Give results until a file is there, without ever waiting for anything."""
    while not Path(gate).exists():
        yield "x" * 1000


@handlers.method()
async def endless(request: Request) -> None:
    """Waits for ever, and says when it begins."""
    await asyncio.Event().wait()


@handlers.method()
async def stubborn(request: Request) -> AsyncIterator[str]:
    """Goes on after it was cancelled."""
    yield "started"
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue


@handlers.method()
async def flood(request: Request, count: int, size: int) -> AsyncIterator[str]:
    """Gives `count` results of `size` characters."""
    for _ in range(count):
        yield "x" * size


@handlers.method(scope="admin")
async def secret(request: Request) -> str:
    return "for admins"


@handlers.method()
async def whoami(request: Request) -> dict[str, Any]:
    return {
        "session": request.session,
        "n": request.n,
        "subject": request.subject,
        "attempt": request.attempt,
        "key": request.idempotency_key,
    }


@handlers.method()
async def append(request: Request, path: str, gate: str | None = None) -> int:
    """Note in a file that it runs; then wait until the file `gate` is there."""
    _note(path, request)
    await _wait_for(gate)
    return request.attempt


@handlers.method()
async def words_and_gate(request: Request, text: str, gate: str) -> AsyncIterator[str]:
    """Stream the words of `text`, and the last word when the file `gate` is there."""
    *words, last = text.split()
    for word in words:
        yield word
    await _wait_for(gate)
    yield last


@handlers.method(replay="never")
async def append_once(request: Request, path: str, gate: str | None = None) -> int:
    _note(path, request)
    await _wait_for(gate)
    return request.attempt


@handlers.method(replay="if_not_started")
async def append_if_new(request: Request, path: str, gate: str | None = None) -> int:
    _note(path, request)
    await _wait_for(gate)
    return request.attempt


@handlers.method(max_attempts=3)
async def poison(request: Request, path: str) -> None:
    """Takes the whole server down."""
    _note(path, request)
    os.kill(os.getpid(), signal.SIGKILL)


@handlers.method(live=True)
async def ticks(request: Request, count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


@handlers.method()
def in_thread(request: Request) -> str:
    return threading.current_thread().name


def _note(path: str, request: Request) -> None:
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(f"{request.id} {request.attempt}\n")


async def _wait_for(gate: str | None) -> None:
    # A file is what opens a gate from outside of this process, before and after it was killed.
    while gate is not None and not Path(gate).exists():
        await asyncio.sleep(0.005)


@handlers.method(scope="admin")
async def mended(request: Request, bug: str, runs: str) -> AsyncIterator[str]:
    """Fails as long as the file `bug` is there; else notes that it runs."""
    if Path(bug).exists():
        raise RequestError("broken", "a bug")
    _note(runs, request)
    yield f"{request.subject} {request.idempotency_key}"
