"""Group commit: one append in flight, whatever came meanwhile is the next one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from server.journal import committer as module
from server.journal.committer import (
    BULK_SOURCES,
    COMMIT_BYTES_MAX,
    RIDERS_MAX,
    Committer,
)
from server.journal.entries import Accepted, Authorized, Entry, Stopped, decode_commit
from server.journal.log import Log, Sealed, Unavailable


class GatedLog:
    """A log whose appends wait for the test, and fail when it says so."""

    def __init__(self) -> None:
        self.commits: list[tuple[int, list[Entry]]] = []
        self.tries = 0
        self.gate = asyncio.Event()
        self.failures: list[Exception] = []

    async def append(self, owner: str, seq: int, data: bytes) -> None:
        assert owner == "me"
        self.tries += 1
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.commits.append((seq, decode_commit(data)))


@pytest.fixture
def log() -> GatedLog:
    return GatedLog()


@pytest.fixture
async def committer(log: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Committer]:
    monkeypatch.setattr(module, "RETRY_SECONDS", (0,))
    typed: Log = log
    committer = Committer(typed, "me")
    running = asyncio.create_task(committer.run())
    yield committer
    running.cancel()
    with suppress(asyncio.CancelledError, Sealed):
        await running


class Given:
    """A source that has what it was given, and writes down when it is told."""

    def __init__(self, *entries: Entry, told: list[str] | None = None, name: str = "") -> None:
        self.entries = list(entries)
        self.told = told if told is not None else []
        self.name = name

    def cut(self) -> list[Entry]:
        entries, self.entries = self.entries, []
        return entries

    def committed(self) -> None:
        self.told.append(self.name)


def entry(number: int, size: int = 0) -> Accepted:
    return Accepted("s", number, "alice", 0.0, "x" * size)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_nobody_is_told_before_the_append_returns(
    committer: Committer, log: GatedLog
) -> None:
    source = Given(entry(1))
    committer.commit(source)
    await turns()
    assert (log.tries, source.told) == (1, [])
    log.gate.set()
    await committer.durable()
    assert source.told == [""]


async def test_what_comes_while_one_append_is_under_way_is_one_next_commit(
    committer: Committer, log: GatedLog
) -> None:
    told: list[str] = []
    committer.commit(Given(entry(1), told=told, name="1"))
    await turns()
    for number in (2, 3, 4):
        committer.commit(Given(entry(number), told=told, name=str(number)))
    await turns()
    assert log.tries == 1
    log.gate.set()
    await committer.durable()
    assert [(seq, len(entries)) for seq, entries in log.commits] == [(1, 1), (2, 3)]
    assert told == ["1", "2", "3", "4"]


async def test_a_source_is_cut_once_however_often_it_asked(
    committer: Committer, log: GatedLog
) -> None:
    log.gate.set()
    source = Given(entry(1), entry(2))
    committer.ride(source)
    committer.commit(source)
    committer.commit(source)
    await committer.durable()
    assert log.commits == [(1, [entry(1), entry(2)])]
    assert source.told == [""]


async def test_what_a_source_makes_during_an_append_is_in_the_next_commit(
    committer: Committer, log: GatedLog
) -> None:
    source = Given(entry(1))
    committer.commit(source)
    await turns()
    source.entries.append(entry(2))
    committer.commit(source)
    log.gate.set()
    await committer.durable()
    assert log.commits == [(1, [entry(1)]), (2, [entry(2)])]
    assert source.told == ["", ""]


async def test_riders_wait_for_the_next_commit(committer: Committer, log: GatedLog) -> None:
    log.gate.set()
    committer.ride(Given(Authorized("s", "a")))
    await turns()
    assert log.tries == 0
    committer.commit(Given(entry(1)))
    await committer.durable()
    assert log.commits == [(1, [Authorized("s", "a"), entry(1)])]


async def test_many_riders_are_committed_by_themselves(committer: Committer, log: GatedLog) -> None:
    log.gate.set()
    for _ in range(RIDERS_MAX + 1):
        committer.ride(Given(Authorized("s", "a")))
    await turns()
    assert [seq for seq, _ in log.commits] == [1]


async def test_durable_waits_for_riders(committer: Committer, log: GatedLog) -> None:
    log.gate.set()
    committer.ride(Given(Authorized("s", "a")))
    await committer.durable()
    assert len(log.commits) == 1


async def test_an_entry_of_no_source_comes_behind_those_of_the_sources(
    committer: Committer, log: GatedLog
) -> None:
    """So that `stopped` is the last one."""
    log.gate.set()
    committer.add(Stopped())
    committer.ride(Given(entry(1)))
    await committer.durable()
    assert log.commits == [(1, [entry(1), Stopped()])]


async def test_a_source_that_took_back_what_it_had_is_not_asked(
    committer: Committer, log: GatedLog
) -> None:
    log.gate.set()
    source = Given(entry(1))
    committer.ride(source)
    committer.forget(source)
    await committer.durable()
    assert (log.commits, source.told) == ([], [])


async def test_a_batch_that_is_too_large_becomes_several_commits_in_order(
    committer: Committer, log: GatedLog
) -> None:
    log.gate.set()
    for number in range(4):
        committer.commit(Given(entry(number, COMMIT_BYTES_MAX // 2)))
    await committer.durable()
    assert [seq for seq, _ in log.commits] == list(range(1, len(log.commits) + 1))
    assert len(log.commits) > 1
    entries = [one for _, commit in log.commits for one in commit]
    assert [e.n for e in entries if isinstance(e, Accepted)] == [0, 1, 2, 3]


def numbers(log: GatedLog) -> list[list[int]]:
    """Return the numbers of the requests in each commit."""
    return [[one.n for one in entries if isinstance(one, Accepted)] for _, entries in log.commits]


async def test_sources_with_much_to_say_take_turns_and_others_do_not_wait_for_all(
    committer: Committer, log: GatedLog
) -> None:
    for number in range(2 * BULK_SOURCES + 1):
        committer.bulk(Given(entry(number)))
    await turns()
    committer.commit(Given(entry(100)))
    log.gate.set()
    await committer.durable()
    first, second, third = numbers(log)
    assert first == list(range(BULK_SOURCES))
    assert sorted(second) == [*range(BULK_SOURCES, 2 * BULK_SOURCES), 100]
    assert third == [2 * BULK_SOURCES]


async def test_who_waits_until_all_is_durable_waits_for_what_came_before_only(
    committer: Committer, log: GatedLog
) -> None:
    for number in range(BULK_SOURCES):
        committer.bulk(Given(entry(number)))
    waiting = asyncio.create_task(committer.durable())
    await turns()
    for number in range(100, 100 + 4 * BULK_SOURCES):
        committer.bulk(Given(entry(number)))
    log.gate.set()
    await waiting
    assert len(log.commits) == 2
    await committer.durable()
    assert len(log.commits) == 5


async def test_a_source_whose_turn_comes_after_all_was_cut_has_nothing_to_say(
    committer: Committer, log: GatedLog
) -> None:
    log.gate.set()
    sources = [Given(entry(number)) for number in range(BULK_SOURCES + 1)]
    for source in sources:
        committer.bulk(source)
    committer.commit(sources[-1])
    await committer.durable()
    assert sorted(n for commit in numbers(log) for n in commit) == list(range(BULK_SOURCES + 1))


async def test_an_entry_behind_all_sources_is_behind_those_whose_turn_has_not_come(
    committer: Committer, log: GatedLog
) -> None:
    log.gate.set()
    for number in range(2 * BULK_SOURCES):
        committer.bulk(Given(entry(number)))
    committer.add(Stopped())
    await committer.durable()
    everything = [one for _, entries in log.commits for one in entries]
    assert len(everything) == 2 * BULK_SOURCES + 1
    assert everything[-1] == Stopped()


async def test_an_append_that_fails_is_tried_again_with_the_same_seq(
    committer: Committer, log: GatedLog
) -> None:
    log.failures = [Unavailable("gone"), Unavailable("gone")]
    log.gate.set()
    committer.commit(Given(entry(1)))
    await committer.durable()
    assert log.tries == 3
    assert log.commits == [(1, [entry(1)])]


async def test_an_outage_is_told_until_it_is_over(committer: Committer, log: GatedLog) -> None:
    log.failures = [Unavailable("gone")]
    committer.commit(Given(entry(1)))
    assert committer.available
    log.gate.set()
    while committer.available:
        await asyncio.sleep(0)
    await committer.durable()
    assert committer.available


async def test_an_append_without_an_answer_is_an_outage(
    committer: Committer, log: GatedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    committer.commit(Given(entry(1)))
    await turns()
    committer.sweep()
    assert committer.available, "it has just begun"
    monkeypatch.setattr(module, "STALLED_SECONDS", 0)
    committer.sweep()
    assert not committer.available
    log.gate.set()
    await committer.durable()
    committer.sweep()
    assert committer.available


async def test_what_rides_is_committed_by_the_next_sweep_if_by_nothing_else(
    committer: Committer, log: GatedLog
) -> None:
    log.gate.set()
    source = Given(entry(1))
    committer.ride(source)
    await turns()
    assert source.told == []
    committer.sweep()
    await turns()
    assert source.told == [""]
    committer.sweep()
    await turns()
    assert log.tries == 1, "there is nothing to commit"


async def test_a_sealed_log_ends_it(log: Any) -> None:
    committer = Committer(log, "me")
    log.failures = [Sealed("taken over")]
    log.gate.set()
    source = Given(entry(1))
    committer.commit(source)
    with pytest.raises(Sealed):
        await committer.run()
    assert source.told == []


async def test_a_source_that_fails_does_not_keep_the_others_from_their_news(
    committer: Committer, log: GatedLog, capsys: pytest.CaptureFixture[str]
) -> None:
    class Failing(Given):
        def committed(self) -> None:
            raise RuntimeError("a bug")

    log.gate.set()
    committer.commit(Failing(entry(1)))
    source = Given(entry(2))
    committer.commit(source)
    await committer.durable()
    assert source.told == [""]
    assert "committed_failed" in capsys.readouterr().out
