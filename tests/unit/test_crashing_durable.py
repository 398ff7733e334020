"""The crash test's own reading of a journal says the same as the server's."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.crashing.durable import OwnerLog, fold, read
from server.journal.entries import (
    Accepted,
    Acked,
    Claimed,
    Closed,
    End,
    Entry,
    Finished,
    Opened,
    Results,
    Started,
    Stopped,
    decode_commit,
    encode_commit,
)
from server.journal.sqlite import open_sqlite
from server.journal.state import State
from server.journal.state import fold as fold_as_the_server_does

OPENED = Opened("s", "alice", "", 1.0)


def accepted(*numbers: int) -> Accepted:
    lines = [f'{{"type":"request","id":"id{n}","method":"echo"}}' for n in numbers]
    return Accepted("s", numbers[0], "alice", 1.0, "\n".join([*lines, '{"type":"ack","seq":1}']))


def ended(n: int, outcome: str = "done") -> Finished:
    return Finished("s", [End(n, 1, 1, outcome, 1.0, 2.0, 0, [b"1"], b"")])


def log(owner: str, entries: Sequence[Entry]) -> OwnerLog:
    return OwnerLog(owner, [encode_commit([entry]) for entry in entries])


def live(entries: Sequence[Entry]) -> list[list[Any]]:
    return fold([log("1-a", entries)], set()).sessions["s"].record()["live"]


def test_what_waits_runs_and_has_ended_is_told_apart() -> None:
    entries = [OPENED, accepted(1, 2, 3), ended(1, "cancelled"), Started("s", 2, 1, 1.5)]
    assert live(entries) == [
        [1, "id1", 1, "cancelled"],
        [2, "id2", 1, None],
        [3, "id3", 0, None],
    ]


def test_what_is_acknowledged_is_gone() -> None:
    assert live([OPENED, accepted(1, 2), ended(1), Acked("s", [1], 2, 1)]) == [[2, "id2", 0, None]]


def test_a_session_is_over_when_it_is_closed_and_has_nothing_left() -> None:
    entries = [OPENED, accepted(1), Closed("s"), ended(1)]
    assert fold([log("1-a", entries[:-1])], set()).sessions["s"].closed
    assert fold([log("1-a", entries)], set()).sessions == {}


def test_a_log_that_was_claimed_says_nothing_any_more() -> None:
    old = log("1-a", [OPENED, accepted(1, 2)])
    new = log("2-b", [_snapshot([OPENED, accepted(1, 2)]), Claimed("1-a"), ended(1)])
    journal = fold([new, old], set())
    assert journal.owners == ["2-b"]
    assert journal.sessions["s"].unfinished == 1


def test_a_log_counts_until_all_of_it_was_claimed() -> None:
    old = log("1-a", [OPENED, Opened("t", "bob", "", 1.0), accepted(1)])
    new = log("2-b", [_snapshot([OPENED, accepted(1)])])
    assert set(fold([new, old], set()).sessions) == {"s", "t"}


def test_it_agrees_with_the_fold_of_the_server() -> None:
    entries = [
        OPENED,
        accepted(1, 2, 3, 4),
        Started("s", 1, 1, 1.0),
        Results("s", 1, 0, [b"1"]),
        ended(1),
        ended(3, "cancelled"),
        Acked("s", [1], 0, 0),
        Started("s", 2, 1, 1.0),
        Stopped(),
    ]
    for count in range(2, len(entries) + 1):
        theirs = State()
        fold_as_the_server_does(theirs, decode_commit(encode_commit(entries[:count])))
        session = theirs.sessions["s"]
        expected = [[r.n, r.id, r.attempt, r.outcome] for r in session.live.values()]
        assert live(entries[:count]) == expected


async def test_a_file_is_read_without_a_change_to_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    store = await open_sqlite(path, log=True)
    await store.log.append("1-a", 1, encode_commit([OPENED, accepted(1)]))
    files = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert read(f"sqlite:///{path}").sessions["s"].last_n == 1
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == files
    await store.close()


def test_a_file_without_tables_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    sqlite3.connect(path).close()
    assert read(f"sqlite:///{path}").sessions == {}


def _snapshot(entries: Sequence[Entry]) -> Entry:
    state = State()
    fold_as_the_server_does(state, entries)
    return state.sessions["s"].snapshot()
