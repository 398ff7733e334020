"""kill -9 and start again: nothing accepted is lost, nothing that was done runs again."""

import asyncio
from pathlib import Path

import pytest

from tests.mongo import MongoDaemon
from tests.raw import online, raw
from tests.server_process import ServerProcess


@pytest.fixture
def server(own_server: ServerProcess) -> ServerProcess:
    """A running server of the test's own, to be killed."""
    own_server.start()
    return own_server


def lines(path: Path) -> list[str]:
    return path.read_text().split("\n")[:-1] if path.exists() else []


async def test_unfinished_requests_run_again_in_order_with_another_attempt(
    server: ServerProcess, tmp_path: Path
) -> None:
    runs, gate = tmp_path / "runs", tmp_path / "gate"
    params = {"path": str(runs), "gate": str(gate)}
    async with raw(server.url) as client:
        welcome = await client.hello(started=True)
        for id_ in ("a", "b", "c"):
            await client.request(id_, "append", params=params)
        await client.all_of(("started", "a"), ("accepted", "c"))
        await server.restart()
    gate.touch()
    async with raw(server.url) as client:
        resumed = await client.hello(session=welcome["session"], epoch=welcome["epoch"], seq=0)
        assert resumed["resumed"]
        assert resumed["epoch"] != welcome["epoch"]
        assert [(r["id"], r["n"]) for r in resumed["requests"]] == [("a", 1), ("b", 2), ("c", 3)]
        frames = await client.until("done", "c")
    ends = [f for f in frames if f["type"] == "done"]
    assert [(f["id"], f["attempt"]) for f in ends] == [("a", 2), ("b", 2), ("c", 2)]
    assert [f["seq"] for f in frames] == list(range(1, 7))
    assert lines(runs) == ["a 1", "a 2", "b 2", "c 2"]


async def test_unfinished_requests_run_though_nobody_comes_back(
    server: ServerProcess, tmp_path: Path
) -> None:
    runs, gate = tmp_path / "runs", tmp_path / "gate"
    async with online(server.url) as client:
        await client.request("a", "append", params={"path": str(runs), "gate": str(gate)})
        await client.next("accepted")
        await server.restart()
    gate.touch()
    async with online(server.url) as other:
        while lines(runs)[-1:] != ["a 2"]:
            await other.request("x")
            await other.receive()


async def test_results_of_finished_requests_wait_for_the_client(server: ServerProcess) -> None:
    async with raw(server.url) as client:
        welcome = await client.hello()
        await client.request("a", "words", params={"text": "to be"})
        await client.next("done")
        await server.restart()
    async with raw(server.url) as client:
        await client.hello(session=welcome["session"], epoch=welcome["epoch"], seq=3)
        assert [(f["type"], f["seq"]) for f in await client.until("done")] == [
            ("result", 1),
            ("result", 2),
            ("done", 3),
        ]


async def test_what_was_done_does_not_run_again(server: ServerProcess, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    async with raw(server.url) as client:
        welcome = await client.hello()
        await client.request("a", "append", params={"path": str(runs)})
        await client.next("done")
        await server.restart()
    async with raw(server.url) as client:
        await client.hello(session=welcome["session"])
        await client.request("a", "append", params={"path": str(runs)})
        again = await client.next("accepted")
        assert (again["duplicate"], again["state"]) == (True, "ended")
    assert lines(runs) == ["a 1"]


async def test_an_acknowledged_request_is_gone_but_remembered(
    server: ServerProcess, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    async with raw(server.url) as client:
        welcome = await client.hello()
        await client.request("a", "append", params={"path": str(runs)})
        done = await client.next("done")
        await client.send({"type": "ack", "seq": done["seq"]})
        await client.request("b", params={"text": 1})
        await client.next("done", "b")  # its commits carry the ack
        await server.restart()
    async with raw(server.url) as client:
        resumed = await client.hello(session=welcome["session"])
        assert [r["id"] for r in resumed["requests"]] == ["b"]
        await client.request("a", "append", params={"path": str(runs)})
        assert (await client.next("accepted", "a"))["state"] == "acknowledged"
    assert lines(runs) == ["a 1"]


async def test_a_poison_request_is_given_up_and_the_next_one_runs(
    server: ServerProcess, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    assert server.process is not None
    async with raw(server.url) as client:
        welcome = await client.hello()
        await client.request("poison", "poison", params={"path": str(runs)})
        await client.request("next", "echo", params={"text": 1})
        await client.closed()
    server.process.wait()
    for _ in range(2):
        server.spawn()  # it kills this one too, ready or not
        server.process.wait()
    await server.astart()
    async with raw(server.url) as client:
        await client.hello(session=welcome["session"])
        error = await client.next("error", "poison")
        assert (error["code"], error["attempt"]) == ("handler_error", 3)
        assert "given up" in error["message"]
        await client.request("next", "echo", params={"text": 1})  # was it accepted? Again, then.
        await client.next("done", "next")
    assert lines(runs) == ["poison 1", "poison 2", "poison 3"]


@pytest.mark.parametrize("method", ["append_once", "append_if_new"])
async def test_a_method_that_must_not_run_twice_is_interrupted(
    server: ServerProcess, tmp_path: Path, method: str
) -> None:
    runs = tmp_path / "runs"
    async with raw(server.url) as client:
        welcome = await client.hello()
        never = str(tmp_path / "never")
        await client.request("a", method, params={"path": str(runs), "gate": never})
        await client.next("accepted")
        while not lines(runs):
            await client.request("x")
            await client.receive()
        await server.restart()
    async with raw(server.url) as client:
        await client.hello(session=welcome["session"])
        assert (await client.next("error", "a"))["code"] == "interrupted"
    assert lines(runs) == ["a 1"]


async def test_what_had_not_started_runs_for_the_first_time(
    server: ServerProcess, tmp_path: Path
) -> None:
    """Declared `if_not_started`, the start is in the log before the handler runs."""
    runs = tmp_path / "runs"
    async with raw(server.url) as client:
        welcome = await client.hello()
        await client.request("first", "endless")
        await client.request("second", "append_if_new", params={"path": str(runs)})
        await client.next("accepted", "second")
        await server.restart()
    async with raw(server.url) as client:
        await client.hello(session=welcome["session"], started=True)
        await client.send({"type": "cancel", "id": "first"})
        assert (await client.next("done", "second"))["attempt"] == 1
    assert lines(runs) == ["second 1"]


async def test_sessions_outlive_many_crashes(server: ServerProcess) -> None:
    async with raw(server.url) as client:
        welcome = await client.hello()
    for n in range(1, 5):
        async with raw(server.url) as client:
            resumed = await client.hello(session=welcome["session"])
            assert len(resumed["requests"]) == n - 1
            await client.request(f"r{n}", params={"text": n})
            assert (await client.next("accepted", f"r{n}"))["n"] == n
            await client.next("done", f"r{n}")
        await server.restart()


async def test_a_second_server_on_the_same_file_is_refused(
    server: ServerProcess, tmp_path: Path
) -> None:
    other = ServerProcess(tmp_path, server.journal)
    other.log = tmp_path / "other.log"
    other.spawn()
    assert other.process is not None
    assert other.process.wait(30) == 1
    assert "is locked by process" in other.log.read_text()


async def test_the_log_is_trimmed_though_sessions_live_on(own_server: ServerProcess) -> None:
    """Checkpoints: what a restart reads does not grow with history."""
    own_server.settings |= {"checkpoint_bytes": 4096}
    own_server.start()
    async with raw(own_server.url) as client:
        welcome = await client.hello()
        for n in range(200):
            await client.request(str(n), params={"text": "x" * 500})
            done = await client.next("done", str(n))
            await client.send({"type": "ack", "seq": done["seq"]})
        await client.request("last", params={"text": "kept"})
        await client.next("done", "last")
        await client.request("wait", "sleep", params={"seconds": 2.5})  # until one was made
        await client.next("done", "wait")
        await own_server.restart()
    async with raw(own_server.url) as client:
        resumed = await client.hello(session=welcome["session"])
        assert resumed["resumed"]
        assert [r["id"] for r in resumed["requests"]] == ["last", "wait"]
        await client.request("5", params={"text": "x" * 500})
        assert (await client.next("accepted", "5"))["state"] == "acknowledged"


async def test_a_server_that_was_replaced_before_its_first_request_takes_none(
    tmp_path: Path,
) -> None:
    """It had written nothing that its successor could have found but the begin of its log."""
    daemon = MongoDaemon(tmp_path)
    daemon.start()
    places = [tmp_path / "first", tmp_path / "second"]
    for place in places:
        place.mkdir()
    first, second = (ServerProcess(place, daemon.url("shared")) for place in places)
    try:
        await first.astart()
        async with online(first.url) as client:
            await second.astart()
            await client.request("a", params={"text": "to be"})
            assert (await client.closed())[0] == 1012
        assert first.process is not None
        assert await asyncio.to_thread(first.process.wait, 30) == 1
    finally:
        for each in (first, second, daemon):
            each.close()
