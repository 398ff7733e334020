"""Group commit: one append in flight, whatever came meanwhile is the next one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from server.journal import committer as module
from server.journal.committer import COMMIT_BYTES_MAX, RIDERS_MAX, Committer
from server.journal.entries import Accepted, Authorized, Entry, decode_commit
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


def entry(number: int, size: int = 0) -> Accepted:
    return Accepted("s", number, str(number), "m", b"x" * size, 0, "alice", 0.0, None, False)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_nobody_is_told_before_the_append_returns(
    committer: Committer, log: GatedLog
) -> None:
    told: list[int] = []
    committer.commit(entry(1), told.append, 1)
    await turns()
    assert (log.tries, told) == (1, [])
    log.gate.set()
    await committer.durable()
    assert told == [1]


async def test_what_comes_while_one_append_is_under_way_is_one_next_commit(
    committer: Committer, log: GatedLog
) -> None:
    told: list[int] = []
    committer.commit(entry(1), told.append, 1)
    await turns()
    for number in (2, 3, 4):
        committer.commit(entry(number), told.append, number)
    await turns()
    assert log.tries == 1
    log.gate.set()
    await committer.durable()
    assert [(seq, len(entries)) for seq, entries in log.commits] == [(1, 1), (2, 3)]
    assert told == [1, 2, 3, 4]


async def test_riders_wait_for_the_next_commit(committer: Committer, log: GatedLog) -> None:
    log.gate.set()
    committer.ride(Authorized("s", "a"))
    await turns()
    assert log.tries == 0
    committer.commit(entry(1), lambda _: None, None)
    await committer.durable()
    assert log.commits == [(1, [Authorized("s", "a"), entry(1)])]


async def test_many_riders_are_committed_by_themselves(committer: Committer, log: GatedLog) -> None:
    log.gate.set()
    for _ in range(RIDERS_MAX + 1):
        committer.ride(Authorized("s", "a"))
    await turns()
    assert [seq for seq, _ in log.commits] == [1]


async def test_durable_waits_for_riders(committer: Committer, log: GatedLog) -> None:
    log.gate.set()
    committer.ride(Authorized("s", "a"))
    await committer.durable()
    assert len(log.commits) == 1


async def test_a_batch_that_is_too_large_becomes_several_commits_in_order(
    committer: Committer, log: GatedLog
) -> None:
    log.gate.set()
    for number in range(4):
        committer.commit(entry(number, COMMIT_BYTES_MAX // 2), lambda _: None, None)
    await committer.durable()
    assert [seq for seq, _ in log.commits] == list(range(1, len(log.commits) + 1))
    assert len(log.commits) > 1
    entries = [one for _, commit in log.commits for one in commit]
    assert [e.n for e in entries if isinstance(e, Accepted)] == [0, 1, 2, 3]


async def test_an_append_that_fails_is_tried_again_with_the_same_seq(
    committer: Committer, log: GatedLog
) -> None:
    log.failures = [Unavailable("gone"), Unavailable("gone")]
    log.gate.set()
    committer.commit(entry(1), lambda _: None, None)
    await committer.durable()
    assert log.tries == 3
    assert log.commits == [(1, [entry(1)])]


async def test_an_outage_is_told_until_it_is_over(committer: Committer, log: GatedLog) -> None:
    seen: list[bool] = []
    log.failures = [Unavailable("gone")]
    committer.commit(entry(1), lambda _: seen.append(committer.available), None)
    seen.append(committer.available)
    log.gate.set()
    while committer.available:
        await asyncio.sleep(0)
    await committer.durable()
    assert seen == [True, True]


async def test_a_sealed_log_ends_it(log: Any) -> None:
    committer = Committer(log, "me")
    log.failures = [Sealed("taken over")]
    log.gate.set()
    told: list[int] = []
    committer.commit(entry(1), told.append, 1)
    with pytest.raises(Sealed):
        await committer.run()
    assert told == []


async def test_a_callback_that_fails_does_not_keep_the_others_from_their_news(
    committer: Committer, log: GatedLog, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("a bug")

    told: list[int] = []
    log.gate.set()
    committer.commit(entry(1), fail, None)
    committer.commit(entry(2), told.append, 2)
    await committer.durable()
    assert told == [2]
    assert "commit_callback_failed" in capsys.readouterr().out
