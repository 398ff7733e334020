"""What an operator reads: one life of a request, from several processes; whose lines are whose."""

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.raw import online, raw
from tests.server_process import ServerProcess

HANDLERS = "tests.integration.log_handlers:handlers"
POLL_SECONDS = 0.02

Line = dict[str, Any]


def lines(server: ServerProcess) -> list[Line]:
    return [json.loads(line) for line in server.log.read_text().splitlines()]


def events(server: ServerProcess, **fields: Any) -> list[str]:
    """Return the events of the lines that have these fields."""
    return [line["event"] for line in lines(server) if fields.items() <= line.items()]


async def until(server: ServerProcess, event: str) -> Line:
    """Wait for a line with that event, and return it."""
    while not (found := [line for line in lines(server) if line["event"] == event]):
        await asyncio.sleep(POLL_SECONDS)
    return found[-1]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("logs"), handlers=HANDLERS)
    server.start()
    yield server
    server.close()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path, handlers="tests.integration.handlers:handlers")
    yield server
    server.close()


async def test_a_request_is_followed_by_one_id_from_hello_to_done_through_a_crash(
    own_server: ServerProcess, tmp_path: Path
) -> None:
    own_server.settings |= {"log_level": "debug"}
    gate = tmp_path / "gate"
    params = {"path": str(tmp_path / "notes"), "gate": str(gate)}
    await own_server.astart()
    async with online(own_server.url) as client:
        await client.request("a", "append", params=params)
        await until(own_server, "request_started")
        await own_server.restart()
    session = (await until(own_server, "connection_opened"))["session"]
    async with online(own_server.url, session=session) as client:
        gate.touch()
        await client.next("done", "a")
    await until(own_server, "connection_lost")
    assert events(own_server, request=f"{session}:1") == [
        "request_accepted",
        "request_started",
        "request_accepted",
        "request_replayed",
        "request_ended",
    ]
    assert events(own_server, session=session)[:1] == ["connection_opened"]
    assert events(own_server, session=session)[-1] == "connection_lost"
    for line in lines(own_server):
        if "request" in line:
            assert line["n"] == 1
            assert line["method"] == "append"
            assert line["subject"] == "alice"
            assert line["attempt"] in {0, 1, 2}
    assert [line["attempt"] for line in lines(own_server) if line["event"] == "request_ended"] == [
        2
    ]


async def test_the_line_at_hello_ties_the_connection_to_its_session(server: ServerProcess) -> None:
    async with online(server.url) as client:
        await client.request("a", "quick")
        await client.next("done", "a")
    first = await until(server, "connection_opened")
    assert first["resumed"] is False
    assert first["subject"] == "alice"
    assert first["address"] == "127.0.0.1"
    async with online(server.url, session=first["session"], epoch=first["epoch"]) as client:
        opened = [line for line in lines(server) if line["event"] == "connection_opened"][-1]
        assert opened["resumed"] is True
        assert opened["session"] == first["session"]
        assert opened["connection"] != first["connection"]
    while "connection_lost" not in events(server, connection=opened["connection"]):
        await asyncio.sleep(POLL_SECONDS)


@pytest.mark.parametrize("method", ["quick", "waiting", "stream", "in_thread", "in_process"])
async def test_what_a_handler_logs_says_for_which_request(
    server: ServerProcess, method: str
) -> None:
    async with raw(server.url) as client:
        session = (await client.hello())["session"]
        await client.request("a", method)
        await client.request("b", method)
        await client.next("done", "b")
    said = [
        [line[name] for name in ("request", "n", "method", "subject", "attempt")]
        for line in lines(server)
        if line["event"] == "from_handler" and line.get("session") == session
    ]
    assert said == [[f"{session}:{n}", n, method, "alice", 1] for n in (1, 1, 2, 2)]


async def test_what_a_handler_leaves_behind_is_said_of_no_other_request(
    server: ServerProcess,
) -> None:
    async with online(server.url) as client:
        # In one message: the second is begun in the same turn of the loop.
        await client.send(
            {"type": "request", "id": "a", "method": "leave_behind"},
            {"type": "request", "id": "b", "method": "never_ends"},
        )
        await client.next("error", "b")
    assert "request" not in await until(server, "left_behind")


async def test_fields_that_a_handler_gives_win(server: ServerProcess) -> None:
    async with online(server.url) as client:
        await client.request("a", "own_fields")
        await client.next("done", "a")
    (line,) = [line for line in lines(server) if line.get("method") == "own_fields"]
    assert line["n"] == "mine"
    assert line["request"].endswith(":1")


async def test_the_first_line_tells_what_runs_and_the_last_what_it_did(
    own_server: ServerProcess,
) -> None:
    await own_server.astart()
    async with online(own_server.url) as client:
        for name in ("a", "b"):
            await client.request(name, "whoami")
            await client.next("done", name)
    assert await asyncio.to_thread(own_server.terminate) == 0
    serving = await until(own_server, "serving")
    assert serving["url"] == own_server.url
    assert serving["version"]
    assert serving["journal"] == own_server.journal
    assert serving["window"] == 64
    stopped = lines(own_server)[-1]
    assert stopped["event"] == "stopped"
    assert stopped["requests_ended"] == 2
    assert stopped["sessions"] == 1
    assert stopped["unfinished"] == 0
    assert stopped["uptime_seconds"] >= 0


async def test_without_debugging_a_good_request_leaves_no_line(server: ServerProcess) -> None:
    async with raw(server.url) as client:
        session = (await client.hello())["session"]
        await client.request("a", params={"text": "x"})
        await client.next("done", "a")
    assert not [line for line in lines(server) if line.get("request") == f"{session}:1"]


@pytest.mark.parametrize(("own", "level"), [(0.05, "info"), (None, "warning")])
async def test_a_timeout_is_a_warning_unless_its_client_chose_it(
    server: ServerProcess, own: float | None, level: str
) -> None:
    async with raw(server.url) as client:
        session = (await client.hello())["session"]
        await client.request("a", "never_ends", timeout=own)
        await client.next("error", "a")
    (line,) = [line for line in lines(server) if line.get("request") == f"{session}:1"]
    assert (line["event"], line["level"]) == ("request_timed_out", level)


async def test_a_request_that_is_not_run_again_says_so(
    own_server: ServerProcess, tmp_path: Path
) -> None:
    params = {"path": str(tmp_path / "notes"), "gate": str(tmp_path / "gate")}
    await own_server.astart()
    async with online(own_server.url) as client:
        await client.request("a", "append_once", params=params)
        while not (tmp_path / "notes").exists():
            await asyncio.sleep(POLL_SECONDS)
        await own_server.restart()
    line = await until(own_server, "request_interrupted")
    assert line["level"] == "warning"
    assert line["method"] == "append_once"


async def test_a_request_that_is_given_up_says_so(own_server: ServerProcess) -> None:
    own_server.settings["handlers"] = HANDLERS
    await own_server.astart()
    async with online(own_server.url) as client:
        await client.request("a", "last_words")  # takes the server down
        assert own_server.process is not None
        await asyncio.to_thread(own_server.process.wait)
    await own_server.astart()
    line = await until(own_server, "request_given_up")
    assert (line["level"], line["method"], line["attempt"]) == ("error", "last_words", 1)


async def test_a_server_that_lost_its_journal_says_just_that(
    own_server: ServerProcess, tmp_path: Path
) -> None:
    """Another one has taken over; what ran in its pools is no handler's failure."""
    own_server.settings["handlers"] = HANDLERS
    params = {"gate": str(tmp_path / "gate")}
    await own_server.astart()
    async with online(own_server.url) as thread, online(own_server.url) as process:
        await thread.request("a", "wait_in_thread", params=params)
        await process.request("a", "wait_in_process", params=params)
        await until_noted(tmp_path, 2)
        with closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as database:
            database.execute("INSERT INTO log SELECT max(key) + 1, NULL FROM log")  # a seal
        await thread.request("b", "quick")
        assert own_server.process is not None
        assert await asyncio.to_thread(own_server.process.wait) == 1
    alarms = [line for line in lines(own_server) if line["level"] in {"error", "critical"}]
    assert [line["event"] for line in alarms] == ["journal_lost"]
    assert "exception" not in alarms[0]
    assert "another server" in alarms[0]["reason"]
    stopped = lines(own_server)[-1]
    assert (stopped["event"], stopped["unfinished"]) == ("stopped", 3)


async def until_noted(directory: Path, count: int) -> None:
    """Wait until so many methods have noted that they run."""
    while len(list(directory.glob("gate.*"))) < count:
        await asyncio.sleep(POLL_SECONDS)
