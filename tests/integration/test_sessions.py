"""Sessions over real sockets: order, streaming, cancel, resume, takeover, tokens."""

import time
from pathlib import Path

import pytest

from tests.raw import Frame, RawClient, online, raw
from tests.server_process import ServerProcess, token, unique


def results(frames: list[Frame], id: str) -> list[object]:  # noqa: A002 - the wire's name
    return [f["data"] for f in frames if f["type"] == "result" and f["id"] == id]


async def test_welcome_tells_limits_and_server(server: ServerProcess) -> None:
    async with raw(server.url) as client:
        welcome = await client.hello()
    assert (welcome["resumed"], welcome["seq"], welcome["requests"]) == (False, 0, [])
    assert welcome["limits"]["window"] == 4
    assert welcome["limits"]["max_message_bytes"] == 4096
    assert welcome["server"]["name"] == "queuesystem"
    assert welcome["expires_at"] > time.time()


async def test_the_subprotocol_is_agreed(server: ServerProcess) -> None:
    async with raw(server.url) as client:
        assert client.socket.subprotocol == "queuesystem.v1"


async def test_the_token_may_come_in_the_handshake(server: ServerProcess) -> None:
    async with raw(server.url, {"Authorization": f"Bearer {token()}"}) as client:
        await client.send({"type": "hello"})
        await client.next("welcome")


async def test_a_request_is_accepted_streamed_and_done(server: ServerProcess) -> None:
    async with online(server.url) as client:
        await client.request("a", "words", params={"text": "to be"})
        assert await client.until("done") == [
            {"type": "accepted", "id": "a", "n": 1},
            {"type": "result", "id": "a", "seq": 1, "attempt": 1, "index": 0, "data": "to"},
            {"type": "result", "id": "a", "seq": 2, "attempt": 1, "index": 1, "data": "be"},
            {"type": "done", "id": "a", "seq": 3, "attempt": 1, "results": 2},
        ]


async def test_requests_of_a_session_run_one_at_a_time_in_order(
    server: ServerProcess, tmp_path: Path
) -> None:
    async with online(server.url) as client:
        path = str(tmp_path / "runs")
        gate = tmp_path / "gate"
        params = {"path": path, "gate": str(gate)}
        ids = ["a", "b", "c", "d"]
        await client.send(
            *({"type": "request", "id": i, "method": "append", "params": params} for i in ids)
        )
        await client.next("accepted", "d")
        async with online(server.url) as other:
            # Whatever comes now, the first one is alone until its gate opens.
            await other.request("x")
            await other.next("error")
        assert Path(path).read_text().split("\n")[:-1] == ["a 1"]
        gate.touch()
        await client.next("done", "d")
        assert Path(path).read_text() == "a 1\nb 1\nc 1\nd 1\n"


async def test_sessions_run_side_by_side(server: ServerProcess) -> None:
    async with online(server.url) as one, online(server.url) as two:
        await one.request("waits", "endless")
        await one.next("accepted")
        await two.request("goes", params={"text": 1})
        await two.next("done", "goes")
        await one.send({"type": "cancel", "id": "waits"})
        await one.next("error", "waits")


async def test_started_is_sent_to_who_asked(server: ServerProcess) -> None:
    async with online(server.url, started=True) as client:
        await client.request("a", params={"text": 1})
        frames = await client.until("done")
        assert {"type": "started", "id": "a", "attempt": 1} in frames


async def test_a_running_request_can_be_cancelled(server: ServerProcess) -> None:
    async with online(server.url, started=True) as client:
        await client.request("a", "endless")
        await client.next("started")
        await client.send({"type": "cancel", "id": "a"})
        error = await client.next("error")
        assert (error["id"], error["code"], error["seq"]) == ("a", "cancelled", 1)


async def test_a_waiting_request_that_is_cancelled_never_starts(
    server: ServerProcess, tmp_path: Path
) -> None:
    path = str(tmp_path / "runs")
    async with online(server.url) as client:
        await client.request("first", "endless")
        await client.request("second", "append", params={"path": path})
        await client.next("accepted", "second")
        await client.send({"type": "cancel", "id": "second"}, {"type": "cancel", "id": "first"})
        await client.next("error", "second")
        await client.request("third", params={"text": 1})
        await client.next("done", "third")
    assert not Path(path).exists()


async def test_the_clients_timeout_ends_a_request(server: ServerProcess) -> None:
    async with online(server.url) as client:
        await client.request("a", "sleep", params={"seconds": 600}, timeout=0.05)
        assert (await client.next("error", "a"))["code"] == "timeout"


async def test_a_request_sent_again_is_not_run_again(server: ServerProcess, tmp_path: Path) -> None:
    path = str(tmp_path / "runs")
    async with online(server.url) as client:
        for _ in range(3):
            await client.request("a", "append", params={"path": path})
        await client.next("done", "a")
        await client.request("a", "append", params={"path": path})
        again = await client.next("accepted", "a")
        while again.get("state") != "ended":
            again = await client.next("accepted", "a")
        assert again["duplicate"]
    assert Path(path).read_text() == "a 1\n"


@pytest.mark.parametrize("method", ["in_thread", "sha256"])
async def test_functions_run_in_threads_and_processes(server: ServerProcess, method: str) -> None:
    async with online(server.url) as client:
        await client.request("a", method, params={"text": "x"} if method == "sha256" else {})
        await client.next("done", "a")


async def test_results_of_a_live_method_carry_no_seq(server: ServerProcess) -> None:
    async with online(server.url) as client:
        await client.request("a", "ticks", params={"count": 3})
        frames = await client.until("done")
        ticks = [f for f in frames if f["type"] == "result"]
        assert [f["data"] for f in ticks] == [0, 1, 2]
        assert not any("seq" in f for f in ticks)
        assert (frames[-1]["seq"], frames[-1]["results"]) == (1, 3)


async def test_a_handler_knows_its_request(server: ServerProcess) -> None:
    async with raw(server.url) as client:
        session = (await client.hello())["session"]
        await client.request("a", "whoami")
        assert (await client.next("result"))["data"] == {
            "session": session,
            "n": 1,
            "subject": "alice",
            "attempt": 1,
            "key": f"{session}:1",
        }


async def dropped(client: RawClient) -> None:
    """Lose the connection without a closing handshake."""
    client.socket.transport.abort()
    await client.socket.wait_closed()


async def test_a_lost_connection_resumes_after_the_last_event_seen(server: ServerProcess) -> None:
    text = "one two three four five"
    async with raw(server.url) as client:
        welcome = await client.hello()
        await client.request("a", "words", params={"text": text, "delay": 0.01})
        first = await client.next("result")
        await dropped(client)
    async with raw(server.url) as client:
        resumed = await client.hello(
            session=welcome["session"], epoch=welcome["epoch"], seq=first["seq"]
        )
        assert resumed["resumed"]
        assert [r["id"] for r in resumed["requests"]] == ["a"]
        frames = await client.until("done")
        assert [f["seq"] for f in frames] == [2, 3, 4, 5, 6]
        assert results(frames, "a") == text.split()[1:]


async def test_results_wait_for_a_client_that_is_away(server: ServerProcess) -> None:
    async with raw(server.url) as client:
        welcome = await client.hello()
        await client.request("a", "words", params={"text": "to be"})
        await client.next("accepted")
        await dropped(client)
    async with raw(server.url) as client:
        await client.hello(session=welcome["session"])
        assert results(await client.until("done"), "a") == ["to", "be"]


async def test_what_is_acknowledged_is_not_sent_again(server: ServerProcess) -> None:
    async with raw(server.url) as client:
        welcome = await client.hello()
        await client.request("a", params={"text": 1})
        done = await client.next("done")
        await client.send({"type": "ack", "seq": done["seq"]})
        await client.request("b", params={"text": 2})
        await client.next("done", "b")
        await dropped(client)
    async with raw(server.url) as client:
        resumed = await client.hello(session=welcome["session"], epoch=welcome["epoch"])
        assert [r["id"] for r in resumed["requests"]] == ["b"]
        assert results(await client.until("done"), "b") == [2]


async def test_a_newer_connection_takes_the_session_over(server: ServerProcess) -> None:
    async with raw(server.url) as old, raw(server.url) as new:
        welcome = await old.hello()
        await old.request("a", "words", params={"text": "x y z", "delay": 0.01})
        await old.next("accepted")
        assert (await new.hello(session=welcome["session"]))["resumed"]
        code, reason = await old.closed()
        assert (code, reason.partition(":")[0]) == (4509, "taken_over")
        assert results(await new.until("done"), "a") == ["x", "y", "z"]


async def test_a_request_may_ask_to_end_with_its_connection(server: ServerProcess) -> None:
    async with raw(server.url) as client:
        welcome = await client.hello()
        await client.request("a", "endless", on_disconnect="cancel")
        await client.request("b", params={"text": 1})
        await client.next("accepted", "b")
        await dropped(client)
    async with raw(server.url) as client:
        await client.hello(session=welcome["session"])
        assert (await client.next("error", "a"))["code"] == "cancelled"
        await client.next("done", "b")


async def test_bye_ends_the_session(server: ServerProcess) -> None:
    async with raw(server.url) as client:
        welcome = await client.hello()
        await client.send({"type": "bye"})
        assert (await client.closed())[0] == 1000
    async with raw(server.url) as client:
        assert not (await client.hello(session=welcome["session"]))["resumed"]


async def test_what_was_accepted_still_runs_after_bye(
    server: ServerProcess, tmp_path: Path
) -> None:
    path, gate, last = tmp_path / "runs", tmp_path / "gate", tmp_path / "last"
    async with online(server.url) as client:
        params = {"path": str(path), "gate": str(gate)}
        await client.request("a", "append", params=params)
        await client.request("b", "append", params={"path": str(last)})
        await client.next("accepted", "b")
        await client.send({"type": "bye"})
        await client.closed()
    gate.touch()
    async with online(server.url) as other:
        await other.request("c", "append", params={"path": str(path), "gate": str(last)})
        await other.next("done", "c")
    assert path.read_text() == "a 1\nc 1\n"


async def test_a_refreshed_token_keeps_the_connection(own_server: ServerProcess) -> None:
    own_server.start()
    async with online(own_server.url, token=token(ttl_seconds=2)) as client:
        fresh = token(ttl_seconds=3600, scope="admin")
        await client.send({"type": "refresh", "token": fresh})
        assert (await client.next("refreshed"))["expires_at"] > time.time() + 1000
        await client.request("a", "secret")
        await client.next("done", "a")


async def test_a_token_of_somebody_else_closes_the_connection(server: ServerProcess) -> None:
    async with online(server.url) as client:
        await client.send({"type": "refresh", "token": token("mallory")})
        assert (await client.closed())[0] == 4503


async def test_a_bad_token_in_refresh_closes_the_connection(server: ServerProcess) -> None:
    async with online(server.url) as client:
        await client.send({"type": "refresh", "token": "x"})
        assert (await client.closed())[0] == 4501


async def test_a_connection_closed_for_its_refresh_takes_nobodys_place(
    own_server: ServerProcess,
) -> None:
    own_server.settings["max_connections"] = 3
    own_server.start()
    for _ in range(5):
        async with online(own_server.url) as client:
            await client.send({"type": "refresh", "token": "x"})
            assert (await client.closed())[0] == 4501
            await client.socket.wait_closed()
    async with online(own_server.url):
        pass  # it was welcome


async def test_an_expired_token_closes_the_connection(own_server: ServerProcess) -> None:
    own_server.settings["jwt_leeway"] = 300  # takes a token whose grace is over already
    own_server.start()
    async with online(own_server.url, token=token(ttl_seconds=-60)) as client:
        code, reason = await client.closed()
        assert code == 4401
        assert "expired" in reason


async def test_a_broken_connection_does_not_touch_another(server: ServerProcess) -> None:
    async with online(server.url) as good:
        async with online(server.url) as bad:
            await bad.request("a", "flood", params={"count": 1000, "size": 5000})
            await dropped(bad)
        await good.request(unique(), params={"text": 1})
        await good.next("done")


async def test_a_client_that_reads_nothing_is_cut_off_and_can_resume(
    own_server: ServerProcess,
) -> None:
    own_server.settings |= {
        "slow_consumer_timeout": 0.5,
        "outbox_bytes": 65536,
        "max_result_bytes": 64 * 2**20,
    }
    own_server.start()
    async with raw(own_server.url) as slow:
        welcome = await slow.hello()
        await slow.request("a", "flood", params={"count": 3000, "size": 10_000})
        await slow.next("accepted")
        slow.socket.transport.pause_reading()
        async with online(own_server.url) as other:
            await other.request("b", params={"text": 1})
            await other.next("done")
            await until_logged(own_server, "slow_consumer")
        slow.socket.transport.resume_reading()
        code, _ = await slow.closed()
        assert code in {4413, 1006}  # 1006: it was cut off before it read the close frame
    async with raw(own_server.url) as again:
        assert (await again.hello(session=welcome["session"]))["resumed"]
        frames = await again.until("done")
        assert [f["index"] for f in frames if f["type"] == "result"] == list(range(3000))


async def until_logged(server: ServerProcess, text: str) -> None:
    """Wait until the server's log says `text`; the test's own time-out bounds it."""
    async with online(server.url) as client:
        while text not in server.log.read_text():
            await client.request(unique(), "sleep", params={"seconds": 0.02})
            await client.next("done")
