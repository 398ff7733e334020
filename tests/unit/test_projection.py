"""The projector: what it reads of commits, what it asks the history for, when it writes."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any, get_args

import pytest
from msgspec import Raw
from msgspec.structs import fields

from protocol.frames import Request
from server.journal import projection
from server.journal.buckets import unpack
from server.journal.entries import (
    DONE,
    Accepted,
    Acked,
    Authorized,
    Claimed,
    Closed,
    End,
    Entry,
    Finished,
    Opened,
    Results,
    Snapshot,
    Started,
    Stopped,
    encode_commit,
)
from server.journal.log import Commit, Unavailable
from server.journal.outline import (
    EndOutline,
    FinishedOutline,
    RequestOutline,
    decode_outline,
    decode_requests,
)
from server.journal.projection import FAILED_BYTES_MAX, KEPT_BYTES, Projector
from server.journal.state import RequestState, SessionState
from server.journal.store import Bucket, Failed, HistoryRow, Packed, Unfinished

OTHERS: list[Entry] = [
    Authorized("s", ""),
    Results("s", 1, 0, [b"1"]),
    Acked("s", [1], 0, 0),
    Closed("s"),
    Snapshot("s", "alice", "", 1, False, [], {}, {}),
    Claimed("0-x"),
    Stopped(),
]


def accepted(*numbers: int, session: str = "s") -> Accepted:
    frames = [f'{{"type":"request","id":"id {n}","method":"echo"}}' for n in numbers]
    return Accepted(session, numbers[0], "alice", 1.0, "\n".join(frames))


def end(n: int, started: float = 1.5) -> End:
    return End(n, 1, 1, DONE, started, 2.0, 0, [b"1"], b"")


class Memory:
    """A log and a history that note what is asked of them."""

    def __init__(self, commits: Sequence[Sequence[Entry]] = ()) -> None:
        self.log_reader: Any = self
        self.history: Any = self
        self.commits = [encode_commit(entries) for entries in commits]
        self.reached = 0
        self.rows: dict[tuple[str, int], HistoryRow] = {}
        self.open: dict[str, Unfinished] = {}
        self.asked: list[list[str]] = []
        self.chunks: list[int] = []
        self.failed: list[Failed] = []
        self.failing = False

    async def read(self, owner: str, after: int) -> AsyncGenerator[Commit, None]:
        assert owner == "1-a"
        for seq in range(after + 1, len(self.commits) + 1):
            yield Commit(seq, self.commits[seq - 1])

    async def resume(self, _owner: str) -> int:
        return self.reached

    async def unfinished(self, sessions: Sequence[str]) -> Sequence[Packed]:
        self.asked.append(sorted(sessions))
        return [self.open[name] for name in sessions if name in self.open]

    async def project(
        self,
        _owner: str,
        upto: int,
        finished: Sequence[Bucket],
        left: Sequence[Unfinished],
        failed: Sequence[Failed],
    ) -> None:
        if self.failing:
            raise Unavailable("not now")
        for bucket in finished:
            self.rows |= {(row.session, row.n): row for row in unpack(bucket)}
        for piece in left:
            known = self.open.get(piece.session)
            assert piece.before == ("" if known is None else known.packed)
            self.open[piece.session] = piece
        self.chunks.append(upto)
        self.reached = upto
        self.failed += failed


# Outlines


@pytest.mark.parametrize(
    ("short", "whole"),
    [(EndOutline, End), (FinishedOutline, Finished), (RequestOutline, Request)],
)
def test_outlines_have_the_shape_of_what_they_outline(short: Any, whole: Any) -> None:
    assert short.__struct_config__.tag == whole.__struct_config__.tag
    assert short.__struct_config__.array_like == whole.__struct_config__.array_like
    names = [field.name for field in fields(whole) if field.name != "params"]
    # What comes last in an array may be left out.
    assert [field.name for field in fields(short)] == names[: len(fields(short))]
    if whole is Request:
        types = {field.name: field.type for field in fields(whole)}
        assert all(field.type == types[field.name] for field in fields(short))


def test_only_what_says_something_of_requests_is_decoded() -> None:
    assert {type(entry) for entry in OTHERS} | {Opened, Accepted, Started, Finished} == set(
        get_args(Entry)
    )
    about: list[Entry] = [
        Opened("s", "alice", "", 1.0),
        accepted(1),
        Started("s", 1, 1, 1.0),
        Finished("s", [end(1)]),
    ]
    decoded = decode_outline(encode_commit([*OTHERS, *about, *OTHERS]))
    assert decoded[:3] == about[:3]
    [finished] = decoded[3:]
    assert isinstance(finished, FinishedOutline)
    assert [(e.n, e.outcome, e.started, e.time) for e in finished.ends] == [(1, DONE, 1.5, 2.0)]


@pytest.mark.parametrize(
    "other",
    [
        '{"type":"ack","seq":1}',
        '{"type":"cancel","id":"x"}',
        '{"type":"bye"}',
        '{"type":"request","id":"bad"}',
        '{"type":"request","id":"bad","method":"echo","timeout":-1}',
        '{"type":"request","id":"","method":"echo"}',
        "not a frame",
    ],
)
def test_other_frames_beside_requests_say_nothing(other: str) -> None:
    text = "\n".join([other, accepted(1, 2).frames, other])
    found = [f.id for f in decode_requests(text) if isinstance(f, RequestOutline)]
    assert found == ["id 1", "id 2"]


# The projector


async def test_a_row_is_complete_when_its_request_finishes() -> None:
    store = Memory([[accepted(1, 2)], [Started("s", 1, 1, 1.2)], [Finished("s", [end(1, 0)])]])
    projector = Projector(store, "1-a")  # type: ignore[arg-type]
    assert await projector.run() == 3
    row = store.rows["s", 1]
    assert (row.id, row.method, row.subject, row.state) == ("id 1", "echo", "alice", DONE)
    assert (row.accepted_at, row.started_at, row.finished_at) == (1.0, 1.2, 2.0)
    assert [row.n for row in unpack(store.open["s"])] == [2]


async def test_nothing_new_is_not_written() -> None:
    store = Memory([[accepted(1)]])
    projector = Projector(store, "1-a")  # type: ignore[arg-type]
    assert [await projector.run(), await projector.run()] == [1, 1]
    assert store.chunks == [1]


async def test_only_sessions_not_met_before_are_looked_up_once() -> None:
    store = Memory([[Opened("s", "alice", "", 1.0), accepted(1), accepted(1, session="t")]])
    projector = Projector(store, "1-a")  # type: ignore[arg-type]
    await projector.run()
    store.commits.append(encode_commit([Finished(name, [end(1)]) for name in ("s", "t", "u")]))
    await projector.run()
    assert store.asked == [["t"], ["u"]]


async def test_another_projector_goes_on_from_what_the_history_has() -> None:
    store = Memory([[accepted(1), Started("s", 1, 1, 1.2)]])
    await Projector(store, "1-a").run()  # type: ignore[arg-type]
    store.commits.append(encode_commit([Finished("s", [end(1, 0)])]))
    await Projector(store, "1-a").run()  # type: ignore[arg-type]
    assert store.rows["s", 1].id == "id 1"
    assert store.rows["s", 1].started_at == 1.2
    assert unpack(store.open["s"]) == []


async def test_a_chunk_ends_with_the_commit_that_fills_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "CHUNK_REQUESTS", 4)
    store = Memory([[accepted(n, n + 1), Finished("s", [end(n)])] for n in range(1, 10, 2)])
    await Projector(store, "1-a").run()  # type: ignore[arg-type]
    assert store.chunks == [2, 4, 5]


async def test_after_a_failure_it_begins_again_from_what_the_history_says() -> None:
    store = Memory([[accepted(1)]])
    projector = Projector(store, "1-a")  # type: ignore[arg-type]
    await projector.run()
    store.commits.append(encode_commit([Finished("s", [end(1)])]))
    store.failing = True
    with pytest.raises(Unavailable):
        await projector.run()
    store.failing = False
    assert await projector.run() == 2
    assert store.rows["s", 1].id == "id 1"
    assert store.asked == [["s"], ["s"]]


async def test_idle_sessions_are_forgotten_when_there_are_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(projection, "KNOWN_SESSIONS_MAX", 2)
    store = Memory([[accepted(1, session=name) for name in "stu"]])
    projector = Projector(store, "1-a")  # type: ignore[arg-type]
    await projector.run()
    store.commits.append(encode_commit([Finished(name, [end(1)]) for name in "st"]))
    await projector.run()
    assert list(projector._sessions) == ["u"]
    store.commits.append(encode_commit([accepted(2, session="s"), accepted(2, session="u")]))
    await projector.run()
    assert store.asked == [["s", "t", "u"], ["s"]]
    assert [row.n for row in unpack(store.open["u"])] == [1, 2]


# What failed


def ended_with_an_error(n: int, params: bytes, error: bytes = b"{}") -> RequestState:
    request = RequestState(n, f"id{n}", "order", Raw(b""), 0, "read", 1.0, 2.5, False)
    request.outcome = "sold_out"
    request.error = error
    request.ended = 3.0
    request.kept_params = Raw(params)
    return request


class OneSession:
    """See projection.Live."""

    def __init__(self) -> None:
        self.state = SessionState("s", "alice", "read")

    def unended(self) -> list[RequestState]:
        return []


class Living:
    """A projection of this process's own log, which has come to `told` commits."""

    def __init__(self) -> None:
        self.told = 0
        self.memory = Memory()
        self.projector = Projector(self.memory, "1-a", lambda: self.told)
        self.session = OneSession()

    async def end(self, *requests: RequestState) -> list[int]:
        """Note that these have ended; return which of all were kept so far."""
        self.told += 1
        self.projector.note(self.session, requests)
        await self.projector.run()
        return [failed.n for failed in self.memory.failed]


async def test_what_a_failed_request_takes_to_run_again_is_kept() -> None:
    living = Living()
    request = ended_with_an_error(7, b'{"a": 1}', b'{"code":"sold_out"}')
    assert await living.end(request) == [7]
    assert living.memory.failed == [
        Failed(
            session="s",
            n=7,
            subject="alice",
            scope="read",
            method="order",
            params='{"a": 1}',
            timeout=2.5,
            error='{"code":"sold_out"}',
            finished_at=3.0,
        )
    ]
    assert request.kept_params is None, "it stays in memory"
    assert await living.end(ended_with_an_error(8, b"{}")) == [7, 8]


async def test_of_what_is_long_the_params_are_not_kept() -> None:
    living = Living()
    long = b" " * (KEPT_BYTES + 1)
    assert await living.end(ended_with_an_error(1, long), ended_with_an_error(2, b"{}", long)) == [
        2
    ]
    assert living.memory.failed[0].error == ""


async def test_no_more_than_so_much_waits_to_be_kept() -> None:
    living = Living()
    count = FAILED_BYTES_MAX // KEPT_BYTES + 1
    requests = [ended_with_an_error(n, b" " * KEPT_BYTES) for n in range(count)]
    kept = await living.end(*requests)
    assert 0 < len(kept) < count
    assert all(request.kept_params is None for request in requests)
    assert count in await living.end(ended_with_an_error(count, b"{}")), "there is room again"


async def test_what_failed_is_kept_though_the_store_was_away() -> None:
    living = Living()
    living.memory.failing = True
    with pytest.raises(Unavailable):
        await living.end(ended_with_an_error(1, b"{}"))
    living.memory.failing = False
    assert await living.end() == [1]
