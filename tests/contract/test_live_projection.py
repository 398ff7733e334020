"""What sessions say of themselves gives the same request log as reading what they wrote."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from msgspec.structs import replace

from protocol import frames as wire
from server.journal import projection
from server.journal.committer import Committer
from server.journal.log import JournalError, Sealed, Unavailable
from server.journal.projection import Projector, project
from server.journal.store import HistoryRow, Store
from server.session import Rules, Session
from tests.contract.backends import Backend
from tests.rules_bench import Bench, ListWork

OWNER = "1-a"
ERROR = b'{"code":"broke","message":"m","retryable":false}'


class LiveBench(Bench):
    """Sessions that write to a real log, and tell a Projector what became durable."""

    def __init__(self, store: Store) -> None:
        self.committer = Committer(store.log, OWNER)
        self.projector = Projector(store, OWNER, lambda: self.committer.told_seq)
        super().__init__(window=64)

    def rules(self) -> Rules:
        return replace(super().rules(), journal=self.committer, note=self.projector.note)

    def another(self, name: str) -> tuple[Session, ListWork]:
        work = ListWork()
        return Session.open(name, "bob", "", self.rules(), work), work


@asynccontextmanager
async def running(store: Store) -> AsyncIterator[LiveBench]:
    bench = LiveBench(store)
    committing = asyncio.create_task(bench.committer.run())
    yield bench
    committing.cancel()
    with suppress(asyncio.CancelledError, Sealed):
        await committing


async def rows(store: Store) -> dict[tuple[str, int], HistoryRow]:
    found = await store.history.find(limit=10_000)
    assert len({(row.session, row.n) for row in found}) == len(found)
    return {(row.session, row.n): row for row in found}


async def from_the_log(store: Store, backend: Backend, tmp_path: Any) -> dict[Any, HistoryRow]:
    """Return the request log that a fresh store makes of the same log."""
    fresh = Backend("sqlite", f"sqlite:///{tmp_path / 'fresh.db'}")
    copy = await fresh.open()
    try:
        async for commit in store.log.read(OWNER, 0):
            await copy.log.append(OWNER, commit.seq, commit.data)
        await project(copy, OWNER)
        return await rows(copy)
    finally:
        await fresh.close_all()


def step(session: Session, work: ListWork, chance: random.Random) -> None:
    """Let something happen in `session`."""
    n = session.state.last_n
    match chance.randrange(6):
        case 0 | 1:
            for k in range(1, chance.randint(2, 6)):
                frame = wire.Request(f"{session.state.id}-{n + k}", "echo")
                session.receive([frame], None)
        case 2 if session._running is not None:
            session.finish(session._running, *chance.choice([("done", b""), ("broke", ERROR)]))
        case 3 if session.state.ids:
            session.receive([wire.Cancel(chance.choice(list(session.state.ids)))], None)
        case 4 if work.queue and session._running is None:
            request = work.queue.popleft()
            if request.outcome is None:
                session.start(request)
            else:
                session.skip()
        case 5 if session._running is None:
            ready = [request for request in work.queue if request.outcome is None]
            if ready:
                session.answer([(request, b"1") for request in ready])
                for request in ready:
                    work.queue.remove(request)
        case _:
            pass


@pytest.mark.parametrize("seed", range(4))
async def test_both_ways_lead_to_the_same_request_log(
    backend: Backend, store: Store, tmp_path: Any, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - not a secret
    async with running(store) as bench:
        sessions = [bench.another(name) for name in ("s1", "s2", "s3")]
        for _ in range(150):
            step(*chance.choice(sessions), chance)
            if chance.random() < 0.3:
                await bench.committer.durable()
            if chance.random() < 0.1:
                await bench.projector.run()
        await bench.committer.durable()
        reached = await bench.projector.run()
        assert reached == bench.committer.seq
        found = await rows(store)
        assert found == await from_the_log(store, backend, tmp_path)
        assert {row.state for row in found.values()} > {"done", "waiting"}


async def one_request(bench: LiveBench, session: Session, work: ListWork) -> None:
    name = f"{session.state.id}-{session.state.last_n + 1}"
    session.receive([wire.Request(name, "echo")], None)
    await bench.committer.durable()
    session.answer([(work.queue.popleft(), b"1")])
    await bench.committer.durable()


async def test_the_log_is_not_read_while_nothing_was_missed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(store) as bench:
        session, work = bench.another("s1")

        def read(*_: Any) -> None:
            raise AssertionError("the log was read")

        monkeypatch.setattr(bench.projector, "_run", read)
        for _ in range(3):
            await one_request(bench, session, work)
            assert await bench.projector.run() == bench.committer.seq
        assert len(await rows(store)) == 3


async def test_what_did_not_get_into_the_history_is_read_from_the_log(
    backend: Backend, store: Store, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(store) as bench:
        session, work = bench.another("s1")
        await one_request(bench, session, work)

        async def fail(*_: Any) -> None:
            raise Unavailable("gone")

        with monkeypatch.context() as patch:
            patch.setattr(store.history, "project", fail)
            with pytest.raises(JournalError):
                await bench.projector.run()
            await one_request(bench, session, work)
        await one_request(bench, session, work)
        assert await bench.projector.run() == bench.committer.seq
        await one_request(bench, session, work)
        assert await bench.projector.run() == bench.committer.seq
        assert await rows(store) == await from_the_log(store, backend, tmp_path)


async def test_more_than_may_wait_in_memory_is_read_from_the_log(
    backend: Backend, store: Store, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "NOTED_ROWS_MAX", 2)
    async with running(store) as bench:
        session, work = bench.another("s1")
        for count in (1, 5, 1):
            for _ in range(count):
                await one_request(bench, session, work)
            assert len(bench.projector._noted.get("s1", (None, []))[1]) <= 2
            await bench.projector.run()
        assert await rows(store) == await from_the_log(store, backend, tmp_path)


async def test_who_waits_goes_on_when_much_was_noted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "NOTED_ROWS_ENOUGH", 2)
    async with running(store) as bench:
        session, work = bench.another("s1")
        waiting = asyncio.create_task(bench.projector.wait(60))
        await one_request(bench, session, work)
        assert not waiting.done()
        await one_request(bench, session, work)
        await waiting
        await bench.projector.run()
        await bench.projector.wait(0)  # or it would return at once for ever
        assert not bench.projector._enough.is_set()
