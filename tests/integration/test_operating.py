"""What an operator sees of requests and sessions, on both journals: server running or killed."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.client import ConnectionFailed, connect
from server.journal.opening import open_store
from tests.integration.operator_cli import listed, operate
from tests.mongo import MongoDaemon
from tests.raw import online, raw
from tests.server_process import ServerProcess, token


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


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[ServerProcess]:
    """On SQLite, where the journal makes no difference."""
    server = ServerProcess(tmp_path, handlers="tests.integration.handlers:handlers")
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


async def test_the_lists_are_read_beside_a_running_server(lite: ServerProcess) -> None:
    async with online(lite.url) as client:
        await client.request("a", params={"text": "x"})
        await client.next("done")
        assert list((await listed(lite, "--subject", "alice")).values()) == ["done"]
        assert await listed(lite, "--subject", "bob") == {}
        assert await listed(lite, "--older-than", "1h") == {}
        assert len(await listed(lite, "--newer-than", "1h", "--method", "echo")) == 1
        table = await operate(lite, "requests", "list")
        assert table.out.startswith("REQUEST")
        assert " done " in table.out.splitlines()[1]
        idle = await operate(lite, "sessions", "list", "--idle")
        assert " alice " in idle.out


async def test_what_clients_chose_cannot_control_the_terminal(lite: ServerProcess) -> None:
    async with online(lite.url) as client:
        await client.request("\x1b[2J\x9b2Jhidden", params={"text": "x"})
        await client.next("done")
        out = (await operate(lite, "requests", "list")).out
        assert "\\x1b[2J\\x9b2Jhidden" in out
        assert all(c.isprintable() or c == "\n" for c in out)


async def test_what_is_not_there_is_said_and_nothing_is_made(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    said = await operate(server, "requests", "list")
    assert (said.code, said.out) == (2, "")
    assert f"there is no journal at {tmp_path}" in said.err
    assert not (tmp_path / "journal.db").exists()


async def test_a_request_that_is_not_there_is_said(lite: ServerProcess) -> None:
    said = await operate(lite, "requests", "show", "nobody:1")
    assert (said.code, said.out) == (1, "")
    assert "no request nobody:1" in said.err


# What operators do


async def test_a_waiting_request_is_cancelled_and_never_runs(
    lite: ServerProcess, tmp_path: Path
) -> None:
    gate, runs = tmp_path / "gate", tmp_path / "runs"
    async with raw(lite.url) as client:
        session = (await client.hello())["session"]
        await client.request("a", "append", params={"path": str(runs), "gate": str(gate)})
        await client.request("b", "append", params={"path": str(runs)})
        await client.next("accepted", "b")
        said = await operate(lite, "requests", "cancel", f"{session}:2")
        assert (said.code, said.out) == (0, "cancelled\n")
        error = await client.next("error", "b")
        assert (error["code"], error["message"]) == ("cancelled", "cancelled by an operator")
        again = await operate(lite, "requests", "cancel", f"{session}:2")
        assert (again.code, again.out) == (1, "")
        assert "it has ended already: cancelled" in again.err
        gate.touch()
        await client.next("done", "a")
    assert runs.read_text() == "a 1\n"


async def test_a_running_request_is_stopped(lite: ServerProcess) -> None:
    async with raw(lite.url) as client:
        session = (await client.hello(started=True))["session"]
        await client.request("a", "endless")
        await client.next("started", "a")
        assert await eventually(lite, session, {"waiting"}) == {f"{session}:1": "running"}
        said = await operate(lite, "requests", "cancel", f"{session}:1")
        assert (said.code, said.out) == (0, "cancelled\n")
        error = await client.next("error", "a")
        assert (error["code"], error["message"]) == ("cancelled", "cancelled by an operator")


async def test_a_handler_that_does_not_let_go_is_not_cancelled_yet(lite: ServerProcess) -> None:
    async with raw(lite.url) as client:
        session = (await client.hello())["session"]
        await client.request("a", "stubborn")
        await client.next("result", "a")
        said = await operate(lite, "requests", "cancel", f"{session}:1", "--wait", "1")
        assert (said.code, said.out) == (3, "")
        assert await eventually(lite, session, {"waiting"}) == {f"{session}:1": "running"}


async def test_what_was_cancelled_without_a_server_does_not_run_when_one_starts(
    server: ServerProcess, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    async with raw(server.url) as client:
        session = (await client.hello(started=True))["session"]
        never = {"path": str(runs), "gate": str(tmp_path / "never")}
        await client.request("a", "append", params=never)
        await client.request("b", "append", params={"path": str(runs)})
        await client.all_of(("started", "a"), ("accepted", "b"))
        server.kill()
    for n in (1, 2):
        said = await operate(server, "requests", "cancel", f"{session}:{n}", "--wait", "0")
        assert (said.code, said.out) == (3, "")
        assert "recorded" in said.err
    await server.astart()
    async with raw(server.url) as client:
        await client.hello(session=session)
        for name in "ab":
            assert (await client.next("error", name))["message"] == "cancelled by an operator"
    assert runs.read_text() == "a 1\n"  # before it was killed


@pytest.mark.parametrize("action", ["cancel", "close"])
async def test_a_command_is_carried_out_once_though_the_server_died_before_it_said_so(
    server: ServerProcess, action: str
) -> None:
    server.close()
    server.settings["handlers"] = "tests.integration.dying_operator:handlers"
    await server.astart()
    async with raw(server.url) as client:
        session = (await client.hello(started=True))["session"]
        await client.request("a", "endless")
        await client.request("b", params={"text": "x"})
        await client.all_of(("started", "a"), ("accepted", "b"))
        if action == "cancel":
            command = asyncio.create_task(operate(server, "requests", "cancel", f"{session}:1"))
        else:
            command = asyncio.create_task(
                operate(server, "sessions", "close", session, "--cancel", "--wait", "60")
            )
        assert server.process is not None
        await asyncio.to_thread(server.process.wait, 60)
    await server.astart()
    said = await command
    assert said.code in {0, 3}, said.err  # 3: it had gone before the server came
    states = await eventually(server, session, {"waiting", "running"})
    if action == "cancel":
        assert states == {f"{session}:1": "cancelled", f"{session}:2": "done"}
    else:
        assert states == dict.fromkeys([f"{session}:1", f"{session}:2"], "cancelled")
        closed = await operate(server, "sessions", "close", session)
        assert (closed.code, "is over" in closed.err) == (1, True)


async def eventually(server: ServerProcess, session: str, passing: set[str]) -> dict[str, str]:
    """Return the states of a session's requests, once none is `passing`."""
    while passing & set((states := await listed(server, "--session", session)).values()):
        pass
    return states


async def test_a_closed_session_ends_for_its_client_and_what_it_had_runs_on(
    lite: ServerProcess, tmp_path: Path
) -> None:
    gate, runs = tmp_path / "gate", tmp_path / "runs"
    async with raw(lite.url) as client:
        session = (await client.hello())["session"]
        await client.request("a", "append", params={"path": str(runs), "gate": str(gate)})
        await client.next("accepted")
        said = await operate(lite, "sessions", "close", session)
        assert said.code == 0, said.err
        assert (
            said.out == f"session {session} is closed, 1 of its requests still run to their end\n"
        )
        code, reason = await client.closed()
        assert (code, reason) == (1000, "closed: an operator ended this session")
    async with raw(lite.url) as client:
        assert not (await client.hello(session=session))["resumed"]
    gate.touch()
    assert await eventually(lite, session, {"waiting", "running"}) == {f"{session}:1": "done"}


async def test_a_closed_session_is_no_reason_for_our_client_to_come_back(
    lite: ServerProcess,
) -> None:
    async with connect(lite.url, token=token()) as session:
        request = session.submit("endless", {})
        while request.n is None:
            await asyncio.sleep(0.005)
        said = await operate(lite, "sessions", "close", session.id or "", "--cancel")
        assert said.code == 0, said.err
        with pytest.raises(ConnectionFailed, match="an operator ended this session"):
            await request
        assert session.state == "closed"


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (("requests", "cancel", "nobody:1"), "no request nobody:1"),
        (("sessions", "close", "nobody"), "no session nobody"),
    ],
)
async def test_what_is_not_there_is_refused(
    lite: ServerProcess, command: tuple[str, ...], text: str
) -> None:
    said = await operate(lite, *command)
    assert (said.code, said.out) == (1, "")
    assert text in said.err


# Retry


async def failed_once(server: ServerProcess, tmp_path: Path) -> str:
    """Have a request fail by a bug that is mended then; return its name."""
    bug, runs = tmp_path / "bug", tmp_path / "runs"
    bug.touch()
    async with online(server.url, token=token(scope="admin")) as client:
        await client.request("a", "mended", params={"bug": str(bug), "runs": str(runs)})
        error = await client.next("error", "a")
        await client.send({"type": "ack", "seq": error["seq"]}, {"type": "bye"})
        await client.closed()
    bug.unlink()
    [row] = (await operate(server, "requests", "list", "--json")).rows
    return row["request"]


async def until_kept(server: ServerProcess, request: str) -> None:
    """Wait until the request log has what it takes to run `request` again."""
    session, _, n = request.rpartition(":")
    store = await open_store(server.journal, log=False)
    while await store.history.failed(session, int(n)) is None:
        await asyncio.sleep(0.05)
    await store.close()


async def test_what_failed_just_before_an_orderly_stop_can_run_again(server: ServerProcess) -> None:
    assert server.process is not None
    async with raw(server.url) as client:
        session = (await client.hello())["session"]
        await client.request("a", "unserialisable")
        await client.next("error", "a")
        server.process.terminate()
        await client.closed()
    assert await asyncio.to_thread(server.process.wait, 60) == 0
    said = await operate(server, "requests", "retry", f"{session}:1", "--wait", "0")
    assert (said.code, said.out) == (3, "")


async def test_a_failed_request_runs_again_as_a_new_one_of_its_own(
    server: ServerProcess, tmp_path: Path
) -> None:
    """Of the same method, params, subject and scope, though its session is over."""
    request = await failed_once(server, tmp_path)
    said = await operate(server, "requests", "retry", request)
    assert said.code == 0, said.err
    again = said.out.removeprefix("runs again as ").strip()
    states = await eventually(server, again.removesuffix(":1"), {"waiting", "running"})
    assert states == {again: "done"}
    [shown] = (await operate(server, "requests", "show", again, "--json")).rows
    assert (shown["id"], shown["subject"], shown["results"]) == (f"retry of {request}", "alice", 1)
    assert (tmp_path / "runs").read_text() == f"retry of {request} 1\n"
    assert (await operate(server, "sessions", "list", "--json")).rows == []
    [shown] = (await operate(server, "requests", "show", request, "--params", "--json")).rows
    assert (shown["state"], shown["error"]["message"]) == ("broken", "a bug")
    assert shown["params"]["bug"] == str(tmp_path / "bug")


async def test_a_retry_without_a_server_runs_once_though_the_next_one_dies_of_it(
    server: ServerProcess, tmp_path: Path
) -> None:
    """After it was done, before that was said."""
    request = await failed_once(server, tmp_path)
    await until_kept(server, request)
    server.kill()
    said = await operate(server, "requests", "retry", request, "--wait", "0")
    assert (said.code, said.out) == (3, "")
    server.settings["handlers"] = "tests.integration.dying_operator:handlers"
    server.spawn()
    assert server.process is not None
    await asyncio.to_thread(server.process.wait, 60)
    await server.astart()
    while "operator_command" not in server.log.read_text():
        await asyncio.sleep(0.01)
    states = await listed(server)
    [again] = states.keys() - {request}
    states = await eventually(server, again.removesuffix(":1"), {"waiting", "running"})
    assert states == {again: "done"}
    assert (tmp_path / "runs").read_text() == f"retry of {request} 1\n"


async def test_what_cannot_run_again_is_refused(lite: ServerProcess) -> None:
    async with raw(lite.url) as client:
        session = (await client.hello())["session"]
        await client.request("a", params={"text": "x"})
        await client.request("b", "fail", params={"code": "no", "message": "x" * 20_000})
        await client.request("c", "endless")
        await client.all_of(("done", "a"), ("error", "b"), ("accepted", "c"))
        for n, reason in (
            (1, "it is done: only what ended with an error"),
            (2, "its params are not kept"),
            (3, "it has not ended"),
        ):
            said = await operate(lite, "requests", "retry", f"{session}:{n}")
            assert (said.code, said.out) == (1, "")
            assert reason in said.err


async def test_a_retry_is_checked_as_any_request(lite: ServerProcess, tmp_path: Path) -> None:
    request = await failed_once(lite, tmp_path)
    await until_kept(lite, request)
    lite.close()
    lite.settings["handlers"] = "server.demo:handlers"
    await lite.astart()
    said = await operate(lite, "requests", "retry", request)
    assert (said.code, said.out) == (1, "")
    assert "unknown_method: no method 'mended'" in said.err
