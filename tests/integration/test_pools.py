"""Threads and processes: awaited to their end, bounded, and gone when the server is."""

import asyncio
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn

import pytest

from server import RequestError
from server.pools import Pools, PoolsClosed, WorkerDied

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def pools() -> AsyncIterator[Pools]:
    pools = Pools(threads=2, processes=2)
    yield pools
    await pools.close()


@pytest.fixture
async def single() -> AsyncIterator[Pools]:
    """One thread, one process."""
    pools = Pools(threads=1, processes=1)
    yield pools
    await pools.close()


@pytest.fixture(params=["run_thread", "run_process"])
def run(request: pytest.FixtureRequest, pools: Pools) -> Callable[..., Awaitable[Any]]:
    return getattr(pools, request.param)


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """Opening it for reading and for writing wait for each other."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


class Gate:
    """A function for a thread that tells when it has begun and ends when it may."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._open = threading.Event()
        self.begun = asyncio.Event()
        self.ended = False

    def __call__(self) -> str:
        self._loop.call_soon_threadsafe(self.begun.set)
        self._open.wait()
        self.ended = True
        return threading.current_thread().name

    def open(self) -> None:
        self._open.set()


async def turns() -> None:
    """Give everything that is ready the time to happen."""
    for _ in range(10):
        await asyncio.sleep(0)


async def meet(fifo: Path) -> None:
    """Wait until the function in a process has come to the fifo, and let it go on."""
    await asyncio.to_thread(fifo.write_text, "x")


def children() -> list[BaseProcess]:
    return multiprocessing.active_children()


# Functions for a process


def add(left: int, right: int) -> int:
    return left + right


def fail(error: BaseException) -> NoReturn:
    raise error


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def come(fifo: Path, then: Path | None = None) -> str:
    """Wait at the fifo, then touch the other path."""
    fifo.read_text()
    if then is not None:
        then.touch()
    return "came"


def come_twice(first: Path, second: Path, then: Path) -> None:
    """Wait at one fifo after the other: who comes to the same one again may meet the first time."""
    come(first)
    come(second, then)


def signal_yourself() -> str:
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    return "alive"


def run_shell(command: str) -> int:
    return subprocess.run(["sh", "-c", command], check=False).returncode  # noqa: S607


def endless() -> None:
    """Hold the interpreter's lock for ages, so that no thread of the process could end it."""
    print("running", flush=True)  # noqa: T201 - the test reads it
    re.fullmatch("(a+)+b", "a" * 60)


def give_something_local() -> object:
    return lambda: None


class TwoArgumentsError(Exception):
    """Pickles, and fails to unpickle."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{what} in {where}")


def fail_with_two_arguments() -> NoReturn:
    raise TwoArgumentsError("hole", "bucket")


# Results and exceptions


async def test_the_result_comes_back(run: Callable[..., Awaitable[Any]]) -> None:
    assert await run(add, 2, 3) == 5


async def test_a_request_error_comes_back_whole(run: Callable[..., Awaitable[Any]]) -> None:
    with pytest.raises(RequestError) as caught:
        await run(fail, RequestError("gone", "it is gone", {"id": 5}, retryable=True))
    error = caught.value
    assert (error.code, error.message, error.details, error.retryable) == (
        "gone",
        "it is gone",
        {"id": 5},
        True,
    )


async def test_an_exception_comes_back(run: Callable[..., Awaitable[Any]]) -> None:
    with pytest.raises(ValueError, match="no such book"):
        await run(fail, ValueError("no such book"))


@pytest.mark.parametrize("error", [StopIteration, SystemExit, KeyboardInterrupt])
async def test_an_exception_that_would_mean_something_to_the_loop_is_wrapped(
    run: Callable[..., Awaitable[Any]], error: type[BaseException]
) -> None:
    """A StopIteration would never arrive, a SystemExit would end the server."""
    with pytest.raises(RuntimeError, match=error.__name__):
        await run(fail, error())


async def test_cancelled_error_of_a_function_is_no_cancellation(
    run: Callable[..., Awaitable[Any]],
) -> None:
    with pytest.raises(RuntimeError, match="CancelledError"):
        await run(fail, asyncio.CancelledError())


async def test_the_traceback_of_the_process_is_in_the_notes(pools: Pools) -> None:
    with pytest.raises(ValueError, match="book") as caught:
        await pools.run_process(fail, ValueError("no such book"))
    assert "in fail" in caught.value.__notes__[0]


async def test_an_exception_that_cannot_travel_comes_as_its_text(pools: Pools) -> None:
    with pytest.raises(RuntimeError, match="TwoArgumentsError: hole in bucket"):
        await pools.run_process(fail_with_two_arguments)


async def test_a_result_that_cannot_travel_is_an_error_of_that_call_only(single: Pools) -> None:
    before = await single.run_process(os.getpid)
    with pytest.raises(Exception, match="pickle"):
        await single.run_process(give_something_local)
    assert await single.run_process(os.getpid) == before


async def test_a_function_that_cannot_travel_is_refused(pools: Pools) -> None:
    with pytest.raises(Exception, match="pickle"):
        await pools.run_process(lambda: None)


# Bounds


async def test_no_more_threads_than_its_size(pools: Pools) -> None:
    gates = [Gate() for _ in range(6)]
    calls = [asyncio.create_task(pools.run_thread(gate)) for gate in gates]
    for gate in gates:
        gate.open()
    assert len(set(await asyncio.gather(*calls))) <= 2


async def test_calls_run_at_the_same_time_up_to_the_size(pools: Pools) -> None:
    gates = [Gate(), Gate()]
    calls = [asyncio.create_task(pools.run_thread(gate)) for gate in gates]
    for gate in gates:
        await gate.begun.wait()
    for gate in gates:
        gate.open()
    await asyncio.gather(*calls)


async def test_no_more_processes_than_its_size(pools: Pools) -> None:
    calls = [pools.run_process(os.getpid) for _ in range(10)]
    pids = set(await asyncio.gather(*calls))
    assert len(pids) <= 2
    assert pids <= {child.pid for child in children()}


async def test_nothing_is_started_before_it_is_needed() -> None:
    before = threading.active_count()
    pools = Pools()
    assert (threading.active_count(), children()) == (before, [])
    await pools.close()


# Cancelling


async def test_a_cancelled_call_in_a_thread_is_awaited_to_its_end(pools: Pools) -> None:
    gate = Gate()
    call = asyncio.create_task(pools.run_thread(gate))
    await gate.begun.wait()
    for _ in range(2):  # cancelling again does not shorten it
        call.cancel()
        await turns()
        assert not call.done()
    gate.open()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert gate.ended


async def test_a_cancelled_call_in_a_process_is_awaited_to_its_end(
    pools: Pools, fifo: Path, tmp_path: Path
) -> None:
    second = tmp_path / "second"
    os.mkfifo(second)
    call = asyncio.create_task(pools.run_process(come_twice, fifo, second, tmp_path / "ended"))
    await meet(fifo)
    call.cancel()
    await turns()
    assert not call.done()
    await meet(second)
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (tmp_path / "ended").exists()


async def test_a_cancelled_call_that_fails_is_still_cancelled(pools: Pools) -> None:
    gate = Gate()

    def fail_late() -> None:
        gate()
        raise ValueError("too late")

    call = asyncio.create_task(pools.run_thread(fail_late))
    await gate.begun.wait()
    call.cancel()
    await turns()
    gate.open()
    with pytest.raises(asyncio.CancelledError) as caught:
        await call
    assert isinstance(caught.value.__cause__, ValueError)


async def test_a_thread_call_cancelled_before_it_begins_is_never_made(single: Pools) -> None:
    first, second = Gate(), Gate()
    second.open()
    running = asyncio.create_task(single.run_thread(first))
    waiting = asyncio.create_task(single.run_thread(second))
    await first.begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    first.open()
    await running
    await single.run_thread(add, 1, 1)
    assert not second.ended


async def test_a_process_call_cancelled_before_it_begins_is_never_made(
    single: Pools, fifo: Path, tmp_path: Path
) -> None:
    running = asyncio.create_task(single.run_process(come, fifo))
    waiting = asyncio.create_task(single.run_process((tmp_path / "made").touch))
    await turns()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await meet(fifo)
    assert await running == "came"
    await single.run_process(add, 1, 1)
    assert not (tmp_path / "made").exists()


# Processes that die


async def test_a_process_that_dies_ends_its_call(pools: Pools) -> None:
    with pytest.raises(WorkerDied, match="-9"):
        await pools.run_process(die)


async def test_the_next_call_after_a_death_gets_another_process(single: Pools) -> None:
    with pytest.raises(WorkerDied):
        await single.run_process(die)
    assert await single.run_process(add, 2, 3) == 5


async def test_the_death_of_a_process_is_no_concern_of_other_calls(
    pools: Pools, fifo: Path
) -> None:
    other = asyncio.create_task(pools.run_process(come, fifo))
    with pytest.raises(WorkerDied):
        await pools.run_process(die)
    await meet(fifo)
    assert await other == "came"


async def test_the_death_of_an_idle_process_is_no_concern_of_any_call(single: Pools) -> None:
    pid = await single.run_process(os.getpid)
    (child,) = children()
    os.kill(pid, signal.SIGKILL)
    await asyncio.to_thread(child.join)
    assert await single.run_process(os.getpid) != pid


async def test_a_process_outlives_the_signals_of_its_group(single: Pools) -> None:
    """Ctrl-C reaches every process of the terminal; the server alone decides when to stop."""
    assert await single.run_process(signal_yourself) == "alive"


async def test_a_process_outlives_those_signals_while_it_starts(single: Pools) -> None:
    call = asyncio.create_task(single.run_process(add, 2, 3))
    while not (started := children()):
        await asyncio.sleep(0)
    for child in started:
        assert child.pid is not None
        os.kill(child.pid, signal.SIGTERM)
        os.kill(child.pid, signal.SIGINT)
    assert await call == 5


async def test_programs_started_by_a_function_do_not_inherit_that(single: Pools) -> None:
    assert await single.run_process(run_shell, "kill -TERM $$") == -signal.SIGTERM


# Closing


async def test_close_waits_for_running_calls() -> None:
    pools = Pools(threads=1)
    gate = Gate()
    call = asyncio.create_task(pools.run_thread(gate))
    await gate.begun.wait()
    closing = asyncio.create_task(pools.close(grace_seconds=60))
    await turns()
    gate.open()
    await closing
    assert await call


async def test_close_gives_up_a_thread_after_the_grace() -> None:
    pools = Pools(threads=1)
    gate = Gate()
    call = asyncio.create_task(pools.run_thread(gate))
    await gate.begun.wait()
    await pools.close(grace_seconds=0)
    with pytest.raises(PoolsClosed):
        await call
    gate.open()


async def test_what_comes_of_a_thread_that_was_given_up_is_dropped() -> None:
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
    pools = Pools(threads=1)
    gate = Gate()
    before = set(threading.enumerate())
    call = asyncio.create_task(pools.run_thread(gate))
    await gate.begun.wait()
    (thread,) = set(threading.enumerate()) - before
    await pools.close(grace_seconds=0)
    with pytest.raises(PoolsClosed):
        await call
    gate.open()
    await asyncio.to_thread(thread.join)
    await turns()
    assert complaints == []


async def test_close_kills_processes_after_the_grace(fifo: Path) -> None:
    pools = Pools(processes=1)
    call = asyncio.create_task(pools.run_process(come_twice, fifo, fifo, fifo))
    await meet(fifo)
    await pools.close(grace_seconds=0)
    with pytest.raises(PoolsClosed):
        await call
    assert children() == []


async def test_a_cancelled_call_that_close_gives_up_is_cancelled() -> None:
    pools = Pools(threads=1)
    gate = Gate()
    call = asyncio.create_task(pools.run_thread(gate))
    await gate.begun.wait()
    call.cancel()
    await turns()
    await pools.close(grace_seconds=0)
    with pytest.raises(asyncio.CancelledError):
        await call
    gate.open()


async def test_after_close_no_idle_process_is_left() -> None:
    pools = Pools(processes=1)
    await pools.run_process(os.getpid)
    await pools.close()
    assert children() == []


@pytest.mark.parametrize("method", ["run_thread", "run_process"])
async def test_after_close_no_call_is_made(method: str) -> None:
    pools = Pools()
    await pools.close()
    with pytest.raises(PoolsClosed):
        await getattr(pools, method)(add, 2, 3)


async def test_calls_that_waited_when_the_pools_closed_are_not_made() -> None:
    pools = Pools(threads=1)
    first, second = Gate(), Gate()
    second.open()
    running = asyncio.create_task(pools.run_thread(first))
    waiting = asyncio.create_task(pools.run_thread(second))
    await first.begun.wait()
    await pools.close(grace_seconds=0)
    first.open()
    assert [type(e) for e in await asyncio.gather(running, waiting, return_exceptions=True)] == [
        PoolsClosed,
        PoolsClosed,
    ]
    assert not second.ended


# A whole process that uses pools: its standard output is open as long as it or a child lives


@contextmanager
def running(body: str) -> "Iterator[subprocess.Popen[str]]":
    lines = [
        "import asyncio, os, time",
        "from server.pools import Pools",
        "from tests.integration import test_pools",
        "async def main():",
        *(f"    {line}" for line in ["pools = Pools()", *body.splitlines()]),
        "asyncio.run(main())",
    ]
    with subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):  # all of it is gone, as it should be
                os.killpg(process.pid, signal.SIGKILL)


def test_no_process_outlives_a_server_that_was_killed() -> None:
    """Neither an idle one nor one that is busy and would not notice by itself."""
    body = (
        "await asyncio.gather(*(pools.run_process(time.sleep, 0.1) for _ in range(2)))\n"
        "await pools.run_process(test_pools.endless)"
    )
    with running(body) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.kill()
        assert process.communicate(timeout=20) == ("", None)


def test_a_process_that_starts_while_its_server_is_killed_makes_no_call() -> None:
    """Its first call waits in its pipe; another server may be about to make it, too."""
    body = (
        "from multiprocessing.connection import Connection\n"
        "send = Connection.send_bytes\n"
        "Connection.send_bytes = lambda *call: (send(*call), os.kill(os.getpid(), 9))\n"
        "await pools.run_process(os.write, 1, b'made')"
    )
    with running(body) as process:
        assert process.communicate(timeout=20) == ("", None)
        assert process.returncode == -signal.SIGKILL


def test_a_thread_that_never_ends_does_not_keep_a_stopped_server_alive() -> None:
    body = (
        "call = asyncio.create_task(pools.run_thread(time.sleep, 3600))\n"
        "await asyncio.sleep(0)\n"
        "await pools.close(0)\n"
        "await asyncio.wait([call])\n"
        "print(type(call.exception()).__name__)"
    )
    with running(body) as process:
        assert process.communicate(timeout=20) == ("PoolsClosed\n", None)
        assert process.returncode == 0


def test_an_idle_process_does_not_keep_a_server_alive_that_forgot_to_close() -> None:
    body = "os.kept = pools\nprint(await pools.run_process(test_pools.add, 2, 3))"
    with running(body) as process:
        assert process.communicate(timeout=20) == ("5\n", None)
        assert process.returncode == 0


def test_a_thread_that_ends_after_the_loop_does_no_harm() -> None:
    """Its result has nowhere to go; what a thread raises would fail the test."""

    async def leave() -> tuple[Gate, threading.Thread]:
        pools = Pools(threads=1)
        gate = Gate()
        before = set(threading.enumerate())
        call = asyncio.create_task(pools.run_thread(gate))
        await gate.begun.wait()
        (thread,) = set(threading.enumerate()) - before
        await pools.close(grace_seconds=0)
        with pytest.raises(PoolsClosed):
            await call
        return gate, thread

    gate, thread = asyncio.run(leave())
    gate.open()
    thread.join(timeout=20)
    assert gate.ended
    assert not thread.is_alive()
