"""How results of a request are handed out, also when a crash made it run again."""

import asyncio
from typing import Any

import pytest
from msgspec import Raw

from protocol import frames as wire
from protocol.client_call import Buffer, Call
from protocol.client_errors import RequestFailed
from protocol.client_handle import Item, RequestHandle, Restarted
from protocol.codec import encode


class Bench:
    """A request whose results come when the test says so."""

    def __init__(self) -> None:
        self.buffer = Buffer(1000)
        self.call = Call("id", 1, b"", self.buffer)
        self.cancelled: list[Call] = []
        self.handle = RequestHandle(self.call, self.cancelled.append)

    def results(self, *values: Any, attempt: int = 1, first: int = 0, seq: int = 1) -> None:
        for index, value in enumerate(values, start=first):
            data = encode(value)
            self.call.result(wire.Result("id", attempt, index, Raw(data), seq), data)

    def done(self, results: int, attempt: int = 1) -> None:
        self.call.done(wire.Done("id", 1, attempt, results))

    def fail(self) -> None:
        self.call.failed(wire.Error("broke", "m", retryable=False, attempt=1))

    async def next(self, count: int) -> list[Any]:
        return [await anext(self.handle) for _ in range(count)]

    async def rest(self) -> list[Any]:
        return [value async for value in self.handle]


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_iteration_gives_each_result_and_ends(bench: Bench) -> None:
    bench.results("a", None, {"b": 1})
    bench.done(3)
    assert await bench.rest() == ["a", None, {"b": 1}]


async def test_iteration_waits_for_results(bench: Bench) -> None:
    task = asyncio.create_task(bench.rest())
    await asyncio.sleep(0)
    bench.results("a")
    await asyncio.sleep(0)
    bench.results("b", first=1)
    bench.done(2)
    assert await task == ["a", "b"]


async def test_iteration_goes_on_after_a_break(bench: Bench) -> None:
    bench.results("a", "b")
    bench.done(2)
    async for value in bench.handle:
        assert value == "a"
        break
    assert await bench.rest() == ["b"]


async def test_iteration_gives_partial_results_and_then_the_error(bench: Bench) -> None:
    bench.results("a")
    bench.fail()
    assert await bench.next(1) == ["a"]
    with pytest.raises(RequestFailed, match="broke"):
        await bench.next(1)


async def test_await_gives_the_last_result(bench: Bench) -> None:
    bench.results("a", "b")
    bench.done(2)
    assert await bench.handle == "b"


async def test_await_gives_none_without_a_result(bench: Bench) -> None:
    bench.done(0)
    assert await bench.handle is None


async def test_await_twice_gives_the_same(bench: Bench) -> None:
    bench.results("a")
    bench.done(1)
    assert [await bench.handle, await bench.handle] == ["a", "a"]


async def test_several_tasks_can_await_the_same_request(bench: Bench) -> None:
    tasks = [asyncio.create_task(bench.handle._last()) for _ in range(2)]
    await asyncio.sleep(0)
    bench.results("a")
    bench.done(1)
    assert await asyncio.gather(*tasks) == ["a", "a"]


async def test_await_gives_the_last_result_after_iteration_too(bench: Bench) -> None:
    bench.results("a", "b")
    bench.done(2)
    await bench.rest()
    assert await bench.handle == "b"


async def test_await_raises_the_error(bench: Bench) -> None:
    bench.results("a")
    bench.fail()
    with pytest.raises(RequestFailed, match="broke"):
        await bench.handle


async def test_iteration_after_await_is_refused_where_results_were_dropped(bench: Bench) -> None:
    bench.results("a")
    bench.done(1)
    await bench.handle
    with pytest.raises(RuntimeError, match="dropped"):
        await bench.rest()


async def test_a_waiter_that_is_cancelled_leaves_nothing_behind(bench: Bench) -> None:
    task = asyncio.create_task(bench.rest())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert not bench.call.wakeups


async def test_results_gives_all(bench: Bench) -> None:
    bench.results("a", "b")
    bench.done(2)
    assert await bench.handle.results() == ["a", "b"]


async def test_results_gives_those_of_the_last_attempt_only(bench: Bench) -> None:
    task = asyncio.create_task(bench.handle.results())
    bench.results("old", "older")
    await asyncio.sleep(0)
    bench.results("new", attempt=2)
    bench.done(1, attempt=2)
    assert await task == ["new"]


async def test_results_after_iteration_is_refused(bench: Bench) -> None:
    bench.results("a", "b")
    await bench.next(1)
    with pytest.raises(RuntimeError, match="one by one"):
        await bench.handle.results()


async def test_results_raises_when_the_first_ones_are_missing(bench: Bench) -> None:
    bench.results("b", first=1)
    bench.done(2)
    with pytest.raises(RequestFailed, match="results_lost"):
        await bench.handle.results()


async def test_iteration_raises_when_results_are_missing(bench: Bench) -> None:
    bench.results("a")
    bench.results("c", first=2)
    assert await bench.next(1) == ["a"]
    with pytest.raises(RequestFailed, match="results_lost"):
        await bench.next(1)


async def test_a_live_method_may_leave_gaps(bench: Bench) -> None:
    bench.results("a", seq=0)
    bench.results("c", first=2, seq=0)
    bench.done(3)
    assert await bench.rest() == ["a", "c"]


async def test_iteration_passes_over_what_a_replay_gives_again(bench: Bench) -> None:
    bench.results("a", "b")
    await bench.next(2)
    bench.results("a", "b", "c", attempt=2)
    bench.done(3, attempt=2)
    assert await bench.rest() == ["c"]


async def test_iteration_survives_several_replays(bench: Bench) -> None:
    bench.results("a", "b")
    await bench.next(2)
    bench.results("a", attempt=2)
    task = asyncio.create_task(bench.rest())
    await asyncio.sleep(0)
    bench.results("a", "b", "c", attempt=3)
    bench.done(3, attempt=3)
    assert await task == ["c"]


async def test_iteration_raises_when_a_replay_gives_something_else(bench: Bench) -> None:
    bench.results("a", "b")
    await bench.next(2)
    bench.results("a", "B", "c", attempt=2)
    with pytest.raises(RequestFailed, match="results_changed"):
        await bench.next(1)


async def test_iteration_raises_when_a_replay_gives_less(bench: Bench) -> None:
    bench.results("a", "b")
    await bench.next(2)
    bench.results("a", attempt=2)
    bench.done(1, attempt=2)
    with pytest.raises(RequestFailed, match="results_changed"):
        await bench.next(1)


async def test_iteration_takes_the_new_attempt_when_nothing_was_given_of_the_old(
    bench: Bench,
) -> None:
    bench.results("old")
    bench.results("new", attempt=2)
    bench.done(1, attempt=2)
    assert await bench.rest() == ["new"]


async def test_await_gives_the_last_result_of_the_last_attempt(bench: Bench) -> None:
    bench.results("old")
    bench.done(0, attempt=2)
    assert await bench.handle is None


async def test_events_show_attempts_as_they_are(bench: Bench) -> None:
    events = bench.handle.events()
    bench.results("a")
    seen: list[Any] = [await anext(events)]
    bench.results("b", attempt=2)
    bench.done(1, attempt=2)
    seen += [event async for event in events]
    assert seen == [Item(1, 0, "a"), Restarted(2), Item(2, 0, "b")]


async def test_events_show_a_restart_after_which_nothing_comes(bench: Bench) -> None:
    events = bench.handle.events()
    bench.results("a")
    await anext(events)
    bench.done(0, attempt=2)
    assert [event async for event in events] == [Restarted(2)]


async def test_events_show_which_results_are_missing(bench: Bench) -> None:
    bench.results("c", first=2)
    bench.done(3)
    assert [event async for event in bench.handle.events()] == [Item(1, 2, "c")]


def test_a_handle_that_is_thrown_away_frees_its_results(bench: Bench) -> None:
    bench.results("a" * 100)
    del bench.handle
    bench.results("b" * 100, first=1)
    assert bench.buffer.size_bytes == 0


def test_room_is_told_once_half_of_the_buffer_is_free() -> None:
    buffer = Buffer(1000)
    told: list[int] = []
    buffer.size_bytes = 1000
    buffer.on_room = lambda: told.append(buffer.size_bytes)
    for _ in range(3):
        buffer.remove(300)
    assert told == [400]


def test_cancel_is_passed_on(bench: Bench) -> None:
    bench.handle.cancel()
    assert bench.cancelled == [bench.call]


@pytest.mark.parametrize("data", [b"1e999", b'"\xff"', b"9" * 5000])
async def test_a_result_that_cannot_be_decoded_is_a_failure_of_the_request(
    bench: Bench, data: bytes
) -> None:
    """The codec passes over the data of results; only who takes one reads it."""
    bench.call.result(wire.Result("id", 1, 0, Raw(data), 1), data)
    with pytest.raises(RequestFailed) as failed:
        await anext(bench.handle)
    assert failed.value.code == "bad_frame"
