"""What an operator sees of requests and sessions, on both journals: server running or killed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.operator_cli import listed, operate
from tests.mongo import MongoDaemon
from tests.raw import online, raw
from tests.server_process import ServerProcess


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoDaemon]:
    daemon = MongoDaemon(tmp_path_factory.mktemp("mongodb"))
    daemon.start()
    yield daemon
    daemon.close()


@pytest.fixture(params=["sqlite", "mongodb"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerProcess]:
    journal = None
    if request.param == "mongodb":
        journal = request.getfixturevalue("daemon").url(f"operator_{tmp_path.name[-20:]}")
    server = ServerProcess(tmp_path, journal, handlers="tests.integration.handlers:handlers")
    server.start()
    yield server
    server.close()


async def test_the_lists_tell_the_truth_though_the_server_was_killed(
    server: ServerProcess,
) -> None:
    """Right after its last commits: the history of the journal has none of this."""
    async with raw(server.url) as client:
        session = (await client.hello(started=True))["session"]
        await client.request("a", params={"text": "x"})
        await client.request("b", "fail", params={"code": "sold_out", "message": "no more"})
        await client.request("c", "endless")
        await client.request("d", params={"text": "to be"}, timeout=7)
        await client.all_of(("error", "b"), ("started", "c"), ("accepted", "d"))
        server.kill()
    states = await listed(server)
    assert states.pop(f"{session}:3") in {"running", "waiting"}  # was there a commit since?
    assert states == {f"{session}:1": "done", f"{session}:2": "sold_out", f"{session}:4": "waiting"}
    assert await listed(server, "--state", "failed") == {f"{session}:2": "sold_out"}
    [shown] = (await operate(server, "requests", "show", f"{session}:2", "--json")).rows
    assert (shown["error"]["code"], shown["error"]["message"]) == ("sold_out", "no more")
    waiting = ("requests", "show", f"{session}:4", "--json")
    [shown] = (await operate(server, *waiting)).rows
    assert (shown["timeout"], shown["params_bytes"], shown["subject"]) == (7, 17, "alice")
    assert "params" not in shown
    [shown] = (await operate(server, *waiting, "--params")).rows
    assert shown["params"] == {"text": "to be"}
    [row] = (await operate(server, "sessions", "list", "--json")).rows
    assert (row["session"], row["unfinished"], row["unacknowledged"], row["last_n"]) == (
        session,
        2,
        2,
        4,
    )


async def test_the_lists_are_read_beside_a_running_server(server: ServerProcess) -> None:
    async with online(server.url) as client:
        await client.request("a", params={"text": "x"})
        await client.next("done")
        assert list((await listed(server, "--subject", "alice")).values()) == ["done"]
        assert await listed(server, "--subject", "bob") == {}
        assert await listed(server, "--older-than", "1h") == {}
        assert len(await listed(server, "--newer-than", "1h", "--method", "echo")) == 1
        table = await operate(server, "requests", "list")
        assert table.out.startswith("REQUEST")
        assert " done " in table.out.splitlines()[1]
        idle = await operate(server, "sessions", "list", "--idle")
        assert " alice " in idle.out


async def test_what_clients_chose_cannot_control_the_terminal(server: ServerProcess) -> None:
    async with online(server.url) as client:
        await client.request("\x1b[2J\x9b2Jhidden", params={"text": "x"})
        await client.next("done")
        out = (await operate(server, "requests", "list")).out
        assert "\\x1b[2J\\x9b2Jhidden" in out
        assert all(c.isprintable() or c == "\n" for c in out)


async def test_what_is_not_there_is_said_and_nothing_is_made(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    said = await operate(server, "requests", "list")
    assert (said.code, said.out) == (2, "")
    assert f"there is no journal at {tmp_path}" in said.err
    assert not (tmp_path / "journal.db").exists()


async def test_a_request_that_is_not_there_is_said(server: ServerProcess) -> None:
    said = await operate(server, "requests", "show", "nobody:1")
    assert (said.code, said.out) == (1, "")
    assert "no request nobody:1" in said.err
