"""The worker's loop with real handlers; the journal and the socket are lists."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any

import pytest
import structlog.testing

from protocol import frames as wire
from server.handlers import Handlers
from server.pools import Pools
from server.request import Request, RequestError
from server.session import Session
from server.worker import ANSWERS_BYTES_MAX, Runtime, Worker
from tests.rules_bench import Bench

handlers = Handlers()
running: list[str] = []
thread_gate = threading.Event()
gate: ContextVar[asyncio.Event] = ContextVar("gate")


@handlers.method()
async def at_once(request: Request, text: str = "x") -> str:
    assert asyncio.current_task() is not None
    return text


@handlers.method()
async def waits(request: Request) -> str:
    running.append(request.id)
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await gate.get().wait()
    running.remove(request.id)
    return "waited"


@handlers.method()
def in_thread(request: Request) -> None:
    running.append(request.id)
    thread_gate.wait(60)


@handlers.method()
async def catches(request: Request) -> str:
    """What it waits for fails: the exception comes in where it waits."""
    failing: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(failing.set_exception, ValueError("inside"))
    try:
        return await failing
    except ValueError as error:
        return str(error)


@handlers.method()
async def fails_at_once(request: Request) -> str:
    raise RuntimeError("a bug")


@handlers.method()
async def refuses_at_once(request: Request) -> str:
    raise RequestError("sold_out", "nothing left", {"left": 0})


@handlers.method()
async def gives_no_json(request: Request) -> object:
    return object()


@handlers.method(replay="never")
async def once(request: Request) -> str:
    return "ran"


@handlers.method()
async def stream(request: Request, count: int = 3) -> AsyncIterator[int]:
    for number in range(count):
        yield number


class NoCommitter:
    """Commits nothing: these handlers need no start in the log."""

    async def durable(self) -> None:
        raise AssertionError("not needed")


class WorkerBench(Bench):
    """A session whose requests a real worker runs."""

    def __init__(self) -> None:
        super().__init__(window=64, check=handlers.check)
        committer: Any = NoCommitter()
        self.pools = Pools()
        self.worker = Worker(Runtime(handlers, self.pools, committer, 60.0), 64)
        self.session = Session.open("s", "alice", "", self.rules(), self.worker)
        self.worker.session = self.session
        self.connect()

    async def run_all(self, *methods: str) -> list[wire.ServerFrame]:
        """Send a request for each method as one message; return all that is said of them."""
        requests = [wire.Request(str(k), method) for k, method in enumerate(methods)]
        self.say(*requests)
        self.journal.flush()
        await self.until(lambda: not self.session.unfinished)
        self.journal.flush()
        return self.out.take_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(0)


@pytest.fixture
async def bench() -> AsyncIterator[WorkerBench]:
    gate.set(asyncio.Event())
    running.clear()
    bench = WorkerBench()
    yield bench
    if (task := bench.worker.end()) is not None:
        await asyncio.wait([task])


def told(frames: list[wire.ServerFrame]) -> list[tuple[str, str | None]]:
    """Return kind and id of what came after `accepted`."""
    return [
        (type(frame).__name__, getattr(frame, "id", None))
        for frame in frames
        if not isinstance(frame, wire.Accepted)
    ]


async def test_handlers_that_end_at_once_are_answered_together(bench: WorkerBench) -> None:
    frames = await bench.run_all("at_once", "at_once")
    assert told(frames) == [("Result", "0"), ("Result", "1"), ("Done", "0"), ("Done", "1")]


async def test_order_holds_when_some_end_at_once_and_some_wait(bench: WorkerBench) -> None:
    gate.get().set()
    frames = await bench.run_all("at_once", "waits", "at_once", "stream", "at_once", "catches")
    results = [(f.id, bytes(f.data)) for f in frames if isinstance(f, wire.Result)]
    assert results == [
        ("0", b'"x"'),
        ("1", b'"waited"'),
        ("2", b'"x"'),
        *[("3", b"%d" % k) for k in range(3)],
        ("4", b'"x"'),
        ("5", b'"inside"'),
    ]
    assert [f.id for f in frames if isinstance(f, wire.Done)] == ["0", "1", "2", "3", "4", "5"]


async def test_what_ended_before_one_that_waits_is_answered_meanwhile(bench: WorkerBench) -> None:
    bench.say(wire.Request("a", "at_once"), wire.Request("b", "waits"))
    bench.journal.flush()
    await bench.until(lambda: running == ["b"])
    bench.journal.flush()
    assert told(bench.out.take_all()) == [("Result", "a"), ("Done", "a")]
    assert bench.folded().live[2].attempt == 1
    gate.get().set()


async def test_one_that_waits_can_be_cancelled(bench: WorkerBench) -> None:
    bench.say(wire.Request("a", "waits"), wire.Request("b", "at_once"))
    bench.journal.flush()
    await bench.until(lambda: running == ["a"])
    bench.say(wire.Cancel("a"))
    await bench.until(lambda: not bench.session.unfinished)
    bench.journal.flush()
    assert sorted(told(bench.out.take_all())) == [("Done", "b"), ("Error", "a"), ("Result", "b")]


@pytest.mark.parametrize(
    ("method", "code"),
    [
        ("fails_at_once", "handler_error"),
        ("refuses_at_once", "sold_out"),
        ("gives_no_json", "handler_error"),
    ],
)
async def test_a_failure_in_the_first_step_ends_only_its_own_request(
    bench: WorkerBench, method: str, code: str
) -> None:
    frames = await bench.run_all("at_once", method, "at_once")
    errors = [frame for frame in frames if isinstance(frame, wire.Error)]
    assert [(error.id, error.code, error.attempt) for error in errors] == [("1", code, 1)]
    assert [f.id for f in frames if isinstance(f, wire.Done)] == ["0", "2"]
    assert bench.folded().snapshot() == bench.session.state.snapshot()


async def test_large_answers_are_handed_over_piece_by_piece(
    bench: WorkerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    answer = Session.answer

    def count(session: Session, answers: Any) -> None:
        batches.append(len(answers))
        answer(session, answers)

    monkeypatch.setattr(Session, "answer", count)
    text = "x" * (ANSWERS_BYTES_MAX // 2)
    params = b'{"text":"%s"}' % text.encode()
    bench.say(*(wire.Request(str(k), "at_once", wire.Raw(params)) for k in range(4)))
    bench.journal.flush()
    await bench.until(lambda: not bench.session.unfinished)
    assert batches == [2, 2]


class SlowCommitter:
    """Takes `seconds` for a commit."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def durable(self) -> None:
        await asyncio.sleep(self.seconds)


async def test_the_time_a_commit_takes_does_not_count_for_the_timeout(bench: WorkerBench) -> None:
    """The handler would end without having begun, when the journal is slow or away."""
    timeout = 0.01
    committer: Any = SlowCommitter(5 * timeout)
    bench.worker._runtime.committer = committer
    bench.say(wire.Request("a", "once", timeout=timeout))
    bench.journal.flush()
    await bench.until(lambda: not bench.session.unfinished)
    bench.journal.flush()
    results = [frame for frame in bench.out.take_all() if isinstance(frame, wire.Result)]
    assert [bytes(result.data) for result in results] == [b'"ran"']


async def test_a_pool_that_closes_is_no_failure_of_the_handler_in_it(bench: WorkerBench) -> None:
    """The server stops: the request stays unfinished in the journal, for the next one."""
    bench.say(wire.Request("a", "in_thread"))
    bench.journal.flush()
    await bench.until(lambda: running == ["a"])
    with structlog.testing.capture_logs() as lines:
        await bench.pools.close(grace_seconds=0)
        await bench.until(lambda: bool(lines) or not bench.worker.alive)
    thread_gate.set()
    assert not lines
    assert bench.session.unfinished == 1
