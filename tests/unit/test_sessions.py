"""Sessions that are over leave nothing behind."""

import asyncio
from typing import Any

from protocol import frames as wire
from server.handlers import Handlers
from server.pools import Pools
from server.request import Request
from server.sessions import Sessions
from server.worker import Runtime
from tests.rules_bench import Bench

handlers = Handlers()


@handlers.method()
async def quick(request: Request) -> None:
    """End at once."""


async def test_the_worker_of_a_session_that_is_over_ends() -> None:
    bench = Bench(check=handlers.check)
    unused: Any = None
    sessions = Sessions(bench.rules(), Runtime(handlers, Pools(), unused, 60), 1, 1)
    seat = sessions.open("alice", "")
    seat.session.receive([wire.Request("a", "quick")], None)
    bench.journal.flush()
    while seat.session.unfinished:
        await asyncio.sleep(0)
    bench.journal.flush()
    assert seat.worker.alive
    seat.session.close(cancel=False)
    sessions.drop_if_over(seat)
    await asyncio.sleep(0)
    assert not seat.worker.alive
