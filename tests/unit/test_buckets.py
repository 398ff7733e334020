"""Buckets: many requests in a row, named the same however often a log is projected."""

from collections.abc import AsyncGenerator

import pytest

from server.journal import buckets
from server.journal.buckets import (
    BUCKET_ROWS,
    FIELDS,
    Newest,
    Row,
    pack_finished,
    pack_unfinished,
    unpack,
    unpack_rows,
)
from server.journal.store import HistoryRow, Packed, Query


def done(n: int, accepted_at: float = 1.0, state: str = "done") -> Row:
    return (n, f"id {n}", "echo", state, 1, 2, accepted_at, accepted_at + 1, accepted_at + 2)


def test_a_bucket_says_what_is_in_it() -> None:
    rows = [done(5, 1.0), done(3, 7.0, "timeout"), done(4, 2.0)]
    [bucket] = pack_finished("s", "alice", rows)
    assert (bucket.first, bucket.count, bucket.states) == (5, 3, ["done", "timeout"])
    assert (bucket.accepted_at, bucket.finished_at) == (7.0, 9.0)
    assert unpack_rows(bucket.packed) == rows


def test_fields_stand_where_they_are_said_to() -> None:
    row = done(5, 1.0)
    [unpacked] = unpack(pack_finished("s", "alice", [row])[0])
    assert unpacked == HistoryRow(
        session="s", subject="alice", **dict(zip(FIELDS, row, strict=True))
    )


def test_what_is_packed_holds_no_request_more_than_once_and_none_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(buckets, "BUCKET_ROWS", 10)
    order = [8, 9, 11, 10, 25, 12, 7]
    packed = pack_finished("s", "alice", [done(n) for n in order])
    assert {bucket.first: [row[0] for row in unpack_rows(bucket.packed)] for bucket in packed} == {
        8: [8, 9, 7],
        11: [11, 10, 12],
        25: [25],
    }


def test_a_bucket_fits_a_document_whatever_clients_send() -> None:
    text = "\x00" * 128  # six bytes each, as JSON
    [bucket] = pack_finished(
        "s", "a", [(n, text, text, "done", 1, 1, 1.5, 1.5, 1.5) for n in range(BUCKET_ROWS)]
    )
    assert len(bucket.packed) < 2_000_000


def test_what_is_not_known_is_no_time() -> None:
    row: Row = (1, None, None, "done", 1, 0, None, None, 3.0)
    assert pack_finished("s", None, [row])[0].accepted_at == 0.0
    assert pack_finished("s", None, [row, done(2, 5.0)])[0].accepted_at == 5.0


def test_nothing_unfinished_is_empty_text() -> None:
    assert pack_unfinished("s", "alice", [], before="[...]").packed == ""
    assert unpack_rows("") == []


async def test_no_more_is_read_than_is_needed() -> None:
    taken: list[float] = []

    async def pieces() -> AsyncGenerator[Packed]:
        for accepted_at in (9.0, 8.0, 8.0, 7.0, 6.0):
            taken.append(accepted_at)
            yield pack_finished("s", "alice", [done(len(taken), accepted_at)])[0]

    newest = Newest(Query(limit=2))
    await newest.read_finished(pieces())
    assert [row.accepted_at for row in newest.rows()] == [9.0, 8.0]
    assert [row.n for row in newest.rows()] == [1, 3]
    assert taken == [9.0, 8.0, 8.0, 7.0]
