"""scripts/benchmark.py: it runs from start to end, and a server that breaks a promise is caught."""

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from protocol import frames as wire
from protocol.codec import decode_client_message, encode
from scripts.bench.commit import Commit
from scripts.bench.context import SPARE_FILES, Context, Sizes
from scripts.bench.dialects import Dialect, Echo, Queue, Violation
from scripts.bench.features import FEATURES, Features, variant_server
from scripts.bench.histories import Sleeper
from scripts.bench.load import Point, measure
from scripts.bench.memory import Memory
from scripts.bench.meter import Measurement
from scripts.bench.mongo import EXECUTABLE
from scripts.bench.mongodb import Mongodb
from scripts.bench.requests import EchoRequests, StreamRequests
from scripts.bench.restart import Restart, resume_all
from scripts.bench.scenario import NotMeasured, Outcome, Scenario
from scripts.bench.storm import Storm
from scripts.bench.streaming import Streaming
from scripts.bench.throughput import TARGET_POINT, Throughput
from scripts.bench.variant_server import DONE, JOURNAL, PARTS, REQUEST_LOG, RESULTS
from scripts.bench.websocket import ConnectionFailed
from server.journal.entries import Entry, Finished, decode_commit
from server.journal.opening import open_store
from server.journal.store import HistoryRow
from tests.integration.welcome import WELCOME
from tests.raw import RawClient, raw

ROOT = Path(__file__).parents[2]
FAULT_AT = 5
"""The reply with which a faulty server goes wrong, counted from 1 on each connection."""


def lose(number: int, reply: bytes) -> list[bytes]:
    return [] if number == FAULT_AT else [reply]


def repeat(number: int, reply: bytes) -> list[bytes]:
    return [reply, reply] if number == FAULT_AT else [reply]


def change(number: int, reply: bytes) -> list[bytes]:
    return [reply.replace(b"not to be", b"not to bee")] if number == FAULT_AT else [reply]


def fall_silent(number: int, reply: bytes) -> list[bytes]:
    return [reply] if number < FAULT_AT else []


def keep(number: int, reply: bytes) -> list[bytes]:
    return [reply]


Fault = Callable[[int, bytes], list[bytes]]


@asynccontextmanager
async def bare(fault: Fault) -> AsyncIterator[str]:
    """Run an echo server whose replies go through `fault`."""

    async def handle(connection: ServerConnection) -> None:
        number = 0
        with suppress(ConnectionClosed):  # by a load that saw enough
            async for message in connection:
                number += 1
                assert isinstance(message, str)
                for reply in fault(number, message.encode()):
                    await connection.send(reply, text=True)

    async with serve(handle, "127.0.0.1", 0, compression=None) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def queue(fault: Fault, kind: str) -> AsyncIterator[str]:
    """Speak `queuesystem.v1`; the frames of one kind (`done`, ...) go through `fault`."""

    async def handle(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(encode(WELCOME), text=True)
        n = seq = 0
        counts: Counter[str] = Counter()
        with suppress(ConnectionClosed):  # by a load that saw enough
            async for message in connection:
                assert isinstance(message, str)
                for frame in decode_client_message(message):
                    if isinstance(frame, wire.Bye):
                        return
                    if isinstance(frame, wire.Request):
                        n += 1
                        for tag, reply in replies(n, seq, frame):
                            counts[tag] += 1
                            seq += tag != "accepted"
                            for one in fault(counts[tag], reply) if tag == kind else [reply]:
                                await connection.send(one, text=True)

    async with serve(handle, "127.0.0.1", 0, compression=None) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def replies(n: int, seq: int, request: wire.Request) -> list[tuple[str, bytes]]:
    """Return what `echo` and `words` answer, as the n-th request of a session."""
    text = msgspec.json.decode(request.params)["text"]
    results = text.split() if request.method == "words" else [text]
    return [
        ("accepted", encode(wire.Accepted(request.id, n))),
        *(
            ("result", encode(wire.Result(request.id, 1, index, wire.Raw(encode(data)), seq)))
            for index, (data, seq) in enumerate(zip(results, count(seq + 1), strict=False))
        ),
        ("done", encode(wire.Done(request.id, seq + len(results) + 1, 1, len(results)))),
    ]


async def load(url: str, make: Callable[[EchoRequests], Dialect], window: int = 3) -> Measurement:
    requests = EchoRequests()
    return await measure(
        url,
        [make(requests) for _ in range(2)],
        window,
        warm_up_seconds=0.05,
        seconds=0.1,
        drain_seconds=0.2,
    )


def speak_queue(requests: EchoRequests) -> Dialect:
    return Queue(requests, "token")


async def test_honest_servers_are_measured() -> None:
    """Replies that are all there make a measurement."""
    async with bare(keep) as url:
        assert (await load(url, Echo)).requests > FAULT_AT
    async with queue(keep, "done") as url:
        measured = await load(url, speak_queue)
    assert measured.requests > FAULT_AT
    assert 0 < measured.p50_seconds <= measured.p99_seconds


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("fault", [lose, repeat, change, fall_silent])
async def test_fault_of_echo_is_found(fault: Fault, window: int) -> None:
    """An echo that is lost, sent twice, changed or withheld is a violation."""
    async with bare(fault) as url:
        with pytest.raises(Violation):
            await load(url, Echo, window)


@pytest.mark.parametrize("kind", ["accepted", "result", "done"])
@pytest.mark.parametrize("fault", [lose, repeat])
async def test_fault_of_queue_is_found(fault: Fault, kind: str) -> None:
    """A frame of any kind that is lost or sent twice is a violation."""
    async with queue(fault, kind) as url:
        with pytest.raises(Violation):
            await load(url, speak_queue)


async def test_changed_result_is_found() -> None:
    """A result with other data than was asked for is a violation."""
    async with queue(change, "result") as url:
        with pytest.raises(Violation):
            await load(url, speak_queue)


async def test_missing_replies_are_counted() -> None:
    """When replies stop coming, the requests without one are counted."""
    async with bare(fall_silent) as url:
        with pytest.raises(Violation, match="6 requests are without a reply"):
            await load(url, Echo, window=3)


async def test_lost_connection_is_no_measurement() -> None:
    """A connection that ends under load ends the measurement."""

    async def hang_up(connection: ServerConnection) -> None:
        await connection.recv()

    async with serve(hang_up, "127.0.0.1", 0, compression=None) as server:
        with pytest.raises(ConnectionFailed, match="1000"):
            await load(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", Echo)


@pytest.mark.parametrize("fault", [lose, repeat])
async def test_fault_within_a_stream_is_found(fault: Fault) -> None:
    """A result that is lost or sent twice in the middle of many is a violation."""
    async with queue(fault, "result") as url:
        with pytest.raises(Violation):
            await load_streams(url)


async def test_streams_are_counted_by_their_results() -> None:
    """An honest stream is measured: more results than requests, the first before the last."""
    async with queue(keep, "result") as url:
        measured = await load_streams(url)
    assert measured.results > 2 * measured.requests
    assert measured.first_p50_seconds <= measured.p50_seconds


async def load_streams(url: str) -> Measurement:
    requests = StreamRequests(3)
    return await measure(
        url,
        [Queue(requests, "token", ack_events=1) for _ in range(2)],
        2,
        warm_up_seconds=0.05,
        seconds=0.1,
        drain_seconds=0.2,
    )


TINY = Sizes(
    seconds=0.3,
    warm_up_seconds=0.1,
    points=(Point(3, 4), Point(1000, 1)),
    echo_loops=("uvloop",),
    idle_sessions=(1000,),
    storm_connections=20,
    storm_at_a_time=(5,),
    stream_results=10,
    large_bytes=100_000,
    finished=20,
    unfinished=20,
    restarts=1,
    batches=(1, 100),
    commits=5,
)
CONNECTIONS_MAX = 30
"""Fewer than TINY asks for in places, which must be said."""


def outcome_of(
    scenario: Callable[[Context], Scenario],
    directory: Path,
    connections_max: int = CONNECTIONS_MAX,
) -> Outcome:
    """Run one repetition of a tiny scenario; nothing but logs may be left of it."""
    context = Context(directory, None, TINY, files_max=SPARE_FILES + connections_max)
    running = scenario(context)
    running.repeat()
    outcome = running.outcome()
    assert json.loads(json.dumps(outcome.data))
    assert outcome.text
    return outcome


def measured(outcome: Outcome) -> list[str]:
    return [figure.name for figure in outcome.figures if figure.ratio is not None]


def missed(outcome: Outcome) -> list[tuple[str, str]]:
    return [(one.name, one.note) for one in outcome.figures if one.ratio is None]


def test_throughput_of_what_is_possible(tmp_path: Path) -> None:
    """A point with more connections than files are allowed is said not to be measured."""
    outcome = outcome_of(Throughput, tmp_path)
    assert measured(outcome) == ["requests/s at 3x4"]
    assert missed(outcome) == [("requests/s at 1000x1", "too few open files are allowed")]
    (point,) = outcome.data["points"]
    assert point["servers"]["ours"]["rate"] > 0
    assert point["servers"]["uvloop"]["rate"] > 0


def test_memory_of_what_is_possible(tmp_path: Path) -> None:
    """With too few open files, what they allow is measured, and it is said."""
    outcome = outcome_of(Memory, tmp_path)
    assert [one["count"] for one in outcome.data["connections"]] == [CONNECTIONS_MAX]
    assert [note for _, note in missed(outcome)] == ["too few open files are allowed"]


def test_storm(tmp_path: Path) -> None:
    outcome = outcome_of(Storm, tmp_path)
    (storm,) = outcome.data["storms"]
    assert storm["echo_rate"] > 0
    assert storm["ours_rate"] > 0


def test_streaming(tmp_path: Path) -> None:
    outcome = outcome_of(Streaming, tmp_path)
    assert len(measured(outcome)) == 2
    assert outcome.data["small"]["ours_results_per_second"] > 0
    assert outcome.data["large"]["ours_results_per_second"] > 0


def test_restart(tmp_path: Path) -> None:
    """Every accepted request is in the manifests after the restart, or this would fail."""
    outcome = outcome_of(Restart, tmp_path)
    assert len(measured(outcome)) == 3
    assert [one["name"] for one in outcome.data["journals"]] == [
        "no history", "20 finished", "20 finished, 20 unfinished",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("welcome", "problem"),
    [
        (WELCOME, "not resumed"),
        (msgspec.structs.replace(WELCOME, resumed=True), "were accepted"),
    ],
)
async def test_what_a_restart_lost_is_found(welcome: wire.Welcome, problem: str) -> None:
    """A session that is not resumed, or resumed without its requests, is a violation."""

    async def handle(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(encode(welcome), text=True)
        await connection.wait_closed()

    async with serve(handle, "127.0.0.1", 0, compression=None) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(Violation, match=problem):
            await resume_all(url, [Sleeper(wire.Hello(token="token", session="s"), 1)])


def test_commit(tmp_path: Path) -> None:
    outcome = outcome_of(Commit, tmp_path)
    stores = {one["store"] for one in outcome.data["commits"]}
    assert stores == ({"SQLite", "MongoDB"} if EXECUTABLE.exists() else {"SQLite"})
    assert {one["requests"] for one in outcome.data["commits"]} == {1, 100}


def test_commit_without_mongodb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What there is is measured, and the line says what is missing."""
    monkeypatch.setattr("scripts.bench.mongo.EXECUTABLE", tmp_path / "nothing")
    outcome = outcome_of(Commit, tmp_path)
    assert len(measured(outcome)) == 2
    ((_, note),) = missed(outcome)
    assert "--mongodb" in note


@pytest.mark.skipif(not EXECUTABLE.exists(), reason="needs SecantusDB")
def test_mongodb(tmp_path: Path) -> None:
    outcome = outcome_of(Mongodb, tmp_path)
    assert len(measured(outcome)) == 1
    assert outcome.data["mongodb"]["rate"] > 0


def test_features(tmp_path: Path) -> None:
    """A server that does without everything still gives the replies that had to come."""
    outcome = outcome_of(
        lambda context: Features(context, FEATURES[-1:]), tmp_path, TARGET_POINT.connections
    )
    assert measured(outcome) == ["requests/s at 50x16 without all of these"]
    assert missed(outcome) == []
    everything = outcome.data["features"]["everything"]
    assert everything["off"] == list(PARTS)
    assert everything["whole"]["rate"] > 0
    assert everything["without"]["rate"] > 0


def test_features_need_their_connections(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match="too few open files"):
        outcome_of(Features, tmp_path)


@pytest.mark.parametrize("off", [[], *([part] for part in PARTS)], ids="-".join)
async def test_a_variant_does_without_its_part_and_no_other(tmp_path: Path, off: list[str]) -> None:
    """What is switched off is missing from journal, request log or wire; the rest is there."""
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    context = Context(tmp_path, None, TINY, files_max=SPARE_FILES)
    with variant_server(context, off, url) as server:
        async with raw(f"{server.url}/ws") as client:
            first = await first_message(client, *context.tokens(1))
            if REQUEST_LOG in off:
                # Longer than the request log needs to catch up.
                await client.request("second", "sleep", params={"seconds": 1.2})
                await client.next("done", "second")
            else:
                await history_has_something(url)
    entries, history = await kept(url)
    assert ("done" in first) == (DONE in off)
    assert (not entries) == (JOURNAL in off)
    assert (not history) == (REQUEST_LOG in off)
    if JOURNAL not in off:
        items = [end.items for one in entries if isinstance(one, Finished) for end in one.ends]
        assert (items[0] == []) == (RESULTS in off)


async def first_message(client: RawClient, token: str) -> str:
    """Send a request; return the first message about it, all of which has come afterwards."""
    await client.hello(token=token)
    await client.request("first", params={"text": "x"})
    message = await client.socket.recv()
    assert isinstance(message, str)
    if "done" not in message:
        await client.next("done")
    return message


async def history_has_something(url: str) -> None:
    """Wait for the request log of a running server."""
    store = await open_store(url, log=False)
    try:
        while not await store.history.find():
            await asyncio.sleep(0.02)
    finally:
        await store.close()


async def kept(url: str) -> tuple[list[Entry], Sequence[HistoryRow]]:
    """Return what a server has left in its journal and in its request log."""
    store = await open_store(url)
    try:
        entries: list[Entry] = []
        for info in await store.log.owners():
            async for commit in store.log.read(info.owner, 0):
                entries += decode_commit(commit.data)
        return entries, await store.history.find()
    finally:
        await store.close()


@pytest.mark.timeout(120)
def test_whole_run(tmp_path: Path) -> None:
    """The command says what it found as text, JSON and Markdown, and leaves nothing behind."""
    result = tmp_path / "result.json"
    readme = tmp_path / "readme.md"
    directory = tmp_path / "directory"
    directory.mkdir()
    ran = run_command(
        *("throughput", "round_trip", "--points", "1x1", "--seconds", "0.3", "--warm-up", "0.1"),
        *("--repeat", "1", "--directory", directory, "--json", result, "--markdown", readme),
        cwd=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    assert "ratios matter" in ran.stdout.splitlines()[0]
    found = json.loads(result.read_text())
    assert list(found["scenarios"]) == ["throughput", "round_trip"]
    (point,) = found["scenarios"]["throughput"]["points"]
    assert set(point["servers"]) == {"uvloop", "asyncio", "ours"}
    trips = found["scenarios"]["round_trip"]
    assert 0 < trips["result_p50_seconds"] <= trips["done_p50_seconds"]
    names = [figure["name"] for figure in found["scoreboard"]]
    assert len(names) == 3
    assert len(readme.read_text().splitlines()) == 2 + len(names)
    assert all(name in ran.stdout for name in names)
    assert not list(directory.iterdir())


def test_failed_scenario_makes_the_command_fail(tmp_path: Path) -> None:
    """A scenario whose server does not start is on the scoreboard, and in the exit code."""
    nowhere = f"sqlite:///{tmp_path}/no/such/directory/journal.db"
    ran = run_command("storm", "--short", "--journal", nowhere, "--directory", tmp_path, cwd=ROOT)
    assert ran.returncode == 1
    assert "FAILED with ServerFailed" in ran.stdout


def test_unknown_scenario_is_refused(tmp_path: Path) -> None:
    ran = run_command("troughput", cwd=tmp_path)
    assert ran.returncode == 2
    assert "troughput: not one of throughput" in ran.stderr


def run_command(*arguments: str | Path, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "benchmark.py", *arguments],
        cwd=cwd,
        env=os.environ | {"QUEUESYSTEM_PORT": "1"},  # not the benchmark's business
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
