"""Sessions that are over leave nothing behind, and neither does a server that ends."""

import asyncio
from typing import Any

import pytest

from protocol import frames as wire
from server.handlers import Handlers
from server.pools import Pools
from server.request import Request
from server.sessions import Seat, Sessions, new_session_id
from server.worker import Runtime
from tests.rules_bench import Bench

handlers = Handlers()


@handlers.method()
async def quick(request: Request) -> None:
    """End at once."""


@handlers.method()
async def endless(request: Request) -> None:
    """Wait for ever."""
    await asyncio.Event().wait()


class Stage:
    """Sessions, and what makes their requests durable."""

    def __init__(self) -> None:
        self.bench = Bench(check=handlers.check)
        unused: Any = None
        runtime = Runtime(handlers, Pools(), unused, 60)
        self.sessions = Sessions(self.bench.rules(), runtime, 10, 10)

    async def after(self, method: str) -> Seat:
        """Return a seat whose worker has begun a request of `method`, and ended it if it can."""
        seat = self.sessions.open("alice", "")
        seat.session.receive([wire.Request("a", method)], None)
        self.bench.journal.flush()
        while seat.session.unfinished and seat.worker.running is None:
            await asyncio.sleep(0)
        self.bench.journal.flush()
        assert seat.worker.alive
        return seat


async def test_the_worker_of_a_session_that_is_over_ends() -> None:
    stage = Stage()
    seat = await stage.after("quick")
    seat.session.close(cancel=False)
    stage.sessions.drop_if_over(seat)
    stage.sessions.drop_if_over(seat)  # by the sweep, and by the loss of its connection
    await asyncio.sleep(0)
    assert not seat.worker.alive


async def test_at_the_end_all_workers_end_and_what_runs_stays_unfinished() -> None:
    stage = Stage()
    idle = await stage.after("quick")
    busy = await stage.after("endless")
    await stage.sessions.end()
    assert not idle.worker.alive
    assert not busy.worker.alive
    assert busy.session.unfinished == 1


async def test_a_session_that_is_over_before_its_requests_are_durable_starts_no_worker() -> None:
    stage = Stage()
    seat = stage.sessions.open("alice", "")
    seat.session.receive([wire.Request("a", "quick"), wire.Bye(cancel=True)], None)
    stage.sessions.drop_if_over(seat)
    assert not len(stage.sessions)
    stage.bench.journal.flush()
    assert not seat.worker.alive


def test_an_id_is_never_taken_for_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operators give it to a command line."""
    ids = iter(["-dash", "--", "usable"])
    monkeypatch.setattr("secrets.token_urlsafe", lambda _bytes: next(ids))
    assert new_session_id() == "usable"
