"""Journals with a history, made by a server that worked and then was killed.

ours -> N requests done, sessions left open -> (M requests accepted, that sleep) -> SIGKILL
"""

import asyncio
from pathlib import Path
from typing import Final, NamedTuple

import uvloop

from protocol import frames as wire

from .context import Context
from .dialects import Violation
from .load import Point, fill
from .servers import on_core, queue_server
from .talk import Talk

FINISHING: Final = Point(50, 16)
SLEEPERS: Final = 16
"""Sessions that hold the unfinished requests."""
SLEEP_SECONDS: Final = 3600.0
JOURNAL: Final = "journal.db"


class Sleeper(NamedTuple):
    """A session to be resumed: with so many unfinished requests."""

    hello: wire.Hello
    unfinished: int


class History(NamedTuple):
    """A journal in a directory of its own, and the sessions to resume on it."""

    name: str
    directory: Path
    sleepers: list[Sleeper]


def make(context: Context, name: str, *, finished: int, unfinished: int) -> History:
    """Make a history of at least so many requests."""
    directory = context.directory / f"history-{finished}-{unfinished}"
    directory.mkdir()
    settings = {"journal": url(directory)}
    sleepers: list[Sleeper] = []
    with (
        queue_server(context.directory, context.server_core, context.secret, settings) as server,
        on_core(context.load_core),
    ):
        if finished:
            dialects = context.queue_dialects(FINISHING.connections)
            uvloop.run(fill(server.url, dialects, FINISHING.window, finished))
        if unfinished:
            tokens = context.tokens(SLEEPERS)
            sleepers = uvloop.run(_put_to_sleep(server.url, tokens, -(-unfinished // SLEEPERS)))
        server.kill()
    return History(name, directory, sleepers)


def url(directory: Path) -> str:
    """Return the URL of the journal in `directory`."""
    return f"sqlite:///{directory / JOURNAL}"


async def _put_to_sleep(address: str, tokens: list[str], each: int) -> list[Sleeper]:
    return await asyncio.gather(*(_sleeper(address, token, each) for token in tokens))


async def _sleeper(address: str, token: str, count: int) -> Sleeper:
    """Have `count` requests accepted that do not end."""
    talk = await Talk.open(address)
    (welcome,) = await talk.ask([wire.Hello(token=token)])
    if not isinstance(welcome, wire.Welcome):
        raise Violation(f"a welcome was to come next, but this came: {welcome}")
    params = wire.Raw(b'{"seconds":%g}' % SLEEP_SECONDS)
    requests = [wire.Request(str(number), "sleep", params) for number in range(count)]
    for answer in await talk.ask(requests, count):
        if not isinstance(answer, wire.Accepted):
            raise Violation(f"a request was to be accepted, but this came: {answer}")
    talk.abort()
    hello = wire.Hello(token=token, session=welcome.session, epoch=welcome.epoch)
    return Sleeper(hello, count)
