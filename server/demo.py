"""The methods a new server offers, and an example of how to write your own.

A method is a function below `@handlers.method()`. Its first parameter is the request; a client
gives the others by name, as `params`, and they are checked against the annotations before the
function is called. Put such functions into a module of yours and start the server with

    queuesystem serve --handlers yourmodule:handlers
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

from msgspec import Meta

from server import Handlers, Request, RequestError

handlers = Handlers()

Delay = Annotated[float, Meta(ge=0, le=10, description="seconds")]
ErrorName = Annotated[str, Meta(pattern="^(?!done$)[a-z][a-z0-9_]{0,63}$")]


@handlers.method()
async def echo(request: Request, text: Any) -> Any:
    """Return `text`, which may be any JSON value.

    An `async def` that returns gives one result.
    """
    return text


@handlers.method()
async def words(request: Request, text: str, delay: Delay = 0) -> AsyncIterator[str]:
    """Stream the words of `text`, with `delay` seconds after each.

    An `async def` that yields gives one result per `yield`, sent at once. The `await` between
    them lets other sessions have their turn, even when the delay is 0.
    """
    for word in text.split():
        yield word
        await asyncio.sleep(delay)


@handlers.method()
async def wordcount(
    request: Request, text: str, delay: Delay = 0
) -> AsyncIterator[dict[str, int | bool]]:
    """Stream how many words of `text` were counted, after every 10 words, and then the total.

    {"words": 10}, {"words": 20}, {"words": 23, "total": true}: the last result is always the
    total, and the only one with `total`. `delay` is the seconds of work for every 10 words.
    """
    total = len(text.split())
    for counted in range(10, total + 1, 10):
        await asyncio.sleep(delay)
        yield {"words": counted}
    yield {"words": total, "total": True}


@handlers.method(timeout=3660)
async def sleep(request: Request, seconds: Annotated[float, Meta(ge=0, le=3600)]) -> float:
    """Return `seconds` after that many seconds.

    Cancel the request, and the `await` ends with asyncio.CancelledError. `timeout` of the method
    replaces the server's own; a client can ask for less.
    """
    await asyncio.sleep(seconds)
    return seconds


@handlers.method()
async def fail(
    request: Request,
    message: str = "this request was asked to fail",
    code: ErrorName | None = None,
    crash: bool = False,
) -> None:
    """End with the error `code` (default `demo_failure`) and `message`; never return.

    A RequestError is what a client gets to see. With `crash`, another exception: the client
    sees `handler_error` and nothing of what happened, which is in the server's log.
    """
    if crash:
        raise RuntimeError(message)
    raise RequestError(code or "demo_failure", message, {"attempt": request.attempt})


@handlers.method(process=True)
def sha256(
    request: Request, text: str, rounds: Annotated[int, Meta(ge=1, le=10_000_000)] = 1
) -> str:
    """Return the SHA-256 of `text` (UTF-8) in hex; with more `rounds`, the hash of the hash.

    A plain `def` with `process=True` runs in a process of its own, on another CPU. Without, it
    would run in a thread: right for code that waits, such as a database driver.
    """
    digest = hashlib.sha256(text.encode()).digest()
    for _ in range(rounds - 1):
        digest = hashlib.sha256(digest).digest()
    return digest.hex()
