"""The client against scripted servers, and against the real one that is killed under it."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest

from protocol.client import ConnectionFailed, RequestFailed, RequestHandle, Session, connect
from protocol.client_call import ITEM_BYTES
from scripts.ports import free_port
from tests.integration.scripted_server import SCENARIOS, ScriptedServer, Step
from tests.server_process import ServerProcess, token

HELLO: Step = {"expect": {"type": "hello"}}
WELCOME: Step = {"welcome": {}}
AGAIN: Step = {"welcome": {"resumed": True}}


def request(name: str = "$a") -> Step:
    """Expect a request, and call its id `name`."""
    return {"expect": {"type": "request", "id": name}}


BYE: Step = {"close": 1000}
ERROR: dict[str, Any] = {
    "type": "error",
    "id": "$a",
    "seq": 2,
    "attempt": 1,
    "code": "cancelled",
    "message": "scripted",
    "retryable": False,
}


def answer(*results: Any, name: str = "$a", first_seq: int = 1) -> Step:
    """Accept and finish the request `name`."""
    frames: list[dict[str, Any]] = [{"type": "accepted", "id": name, "n": 1}]
    for index, data in enumerate(results):
        frames.append(result(index, data, name, first_seq + index))
    seq = first_seq + len(results)
    frames.append({"type": "done", "id": name, "seq": seq, "attempt": 1, "results": len(results)})
    return {"send": frames}


def result(index: int, data: Any, name: str = "$a", seq: int | None = None) -> dict[str, Any]:
    return {
        "type": "result",
        "id": name,
        "seq": index + 1 if seq is None else seq,
        "attempt": 1,
        "index": index,
        "data": data,
    }


async def outcome(handle: RequestHandle, cancel_after: int = -1) -> dict[str, Any]:
    """Say how a request ended in the words of the scenarios."""
    found: list[Any] = []
    try:
        async for one in handle:
            found.append(one)
            if len(found) == cancel_after:
                handle.cancel()
    except (RequestFailed, ConnectionFailed) as error:
        return in_words(error)
    return {"results": found} | ({"attempt": handle.attempt} if handle.attempt > 1 else {})


def send(
    session: Session, method: str, params: dict[str, Any] | None = None, cancel_after: int = -1
) -> Coroutine[Any, Any, dict[str, Any]]:
    """Send a request at once; await the outcome later."""
    handle = session.submit(method, params)
    if cancel_after == 0:
        handle.cancel()
    return outcome(handle, cancel_after)


def in_words(error: RequestFailed | ConnectionFailed) -> dict[str, Any]:
    return {"error" if isinstance(error, RequestFailed) else "failed": error.code}


async def follow(url: str, scenario: dict[str, Any]) -> list[dict[str, Any]]:
    """Do what a scenario says, and return the outcomes."""
    tokens = iter(scenario.get("tokens", ()))
    source = (lambda: next(tokens)) if "tokens" in scenario else "t"
    try:
        async with connect(url, token=source, resume=scenario.get("resume")) as session:
            taken = [outcome(handle) for handle in session.requests.values()]
            sent = [send(session, **request) for request in scenario.get("requests", ())]
            return await asyncio.gather(*taken, *sent)
    except ConnectionFailed as error:
        return [in_words(error)]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[one["name"] for one in SCENARIOS])
async def test_scenario(scenario: dict[str, Any]) -> None:
    async with ScriptedServer(scenario["connections"]) as server:
        outcomes = await follow(server.url, scenario)
    assert outcomes == scenario["outcomes"]


# Tokens


class Tokens:
    """A token callback whose tokens are numbered; `enough` is set by call number `count`."""

    def __init__(self, count: int = 1) -> None:
        self.enough = asyncio.Event()
        self._count = count
        self._given = 0

    def __call__(self) -> str:
        self._given += 1
        if self._given == self._count:
            self.enough.set()
        return f"t{self._given}"

    async def later(self) -> str:
        return self()


def hello(token: str) -> Step:
    return {"expect": {"type": "hello", "token": token}}


def refresh(token: str) -> Step:
    return {"expect": {"type": "refresh", "token": token}}


async def test_the_token_callback_may_be_async() -> None:
    async with (
        ScriptedServer([[hello("t1"), WELCOME]]) as server,
        connect(server.url, token=Tokens().later),
    ):
        pass


async def test_an_expired_token_is_replaced_by_a_fresh_one() -> None:
    script = [
        [hello("t1"), WELCOME, {"close": 4401}],
        [hello("t2"), AGAIN, request(), answer()],
    ]
    async with ScriptedServer(script) as server, connect(server.url, token=Tokens()) as session:
        await session.request("m")


async def test_a_token_that_is_refused_twice_ends_the_session() -> None:
    script = [[hello("t"), {"close": 4401}]] * 2
    async with ScriptedServer(script) as server:
        with pytest.raises(ConnectionFailed) as caught:
            async with connect(server.url, token="t"):
                pass
    assert caught.value.code == 4401


async def test_a_refresh_is_planned_well_before_the_token_expires() -> None:
    script = [[HELLO, {"welcome": {"expires_at": time.time() + 1000}}]]
    async with ScriptedServer(script) as server, connect(server.url, token=Tokens()) as session:
        await asyncio.sleep(0)
        assert session._refresh_timer is not None
        seconds = session._refresh_timer.when() - asyncio.get_running_loop().time()
    assert 600 < seconds < 900


async def test_a_token_is_refreshed_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocol.client.REFRESH_AGAIN_SECONDS", 0.001)
    script = [
        [
            hello("t1"),
            {"welcome": {"expires_at": 1}},
            refresh("t2"),
            {"send": [{"type": "refreshed", "expires_at": 2}]},
            refresh("t3"),
            {"send": [{"type": "refreshed", "expires_at": 4_000_000_000}]},
            {"send": [{"type": "goaway", "reason": "the test is over", "reconnect_after": 0}]},
            {"close": 1012},
        ],
        [hello("t4"), AGAIN, request(), answer()],
    ]
    tokens = Tokens(4)
    async with ScriptedServer(script) as server, connect(server.url, token=tokens) as session:
        await tokens.enough.wait()
        await session.request("m")


async def test_a_fixed_token_is_not_refreshed() -> None:
    script = [[HELLO, {"welcome": {"expires_at": 1}}]]
    async with ScriptedServer(script) as server, connect(server.url, token="t") as session:
        await asyncio.sleep(0)
        assert session._refresh_timer is None


async def test_a_token_that_cannot_be_fetched_now_is_fetched_later() -> None:
    calls: list[None] = []

    def fetch() -> str:
        calls.append(None)
        if len(calls) == 1:
            raise ConnectionRefusedError("the identity provider is away")
        return "t"

    async with ScriptedServer([[HELLO, WELCOME]]) as server, connect(server.url, token=fetch):
        pass
    assert len(calls) == 2


async def test_a_token_callback_that_is_broken_ends_the_session() -> None:
    def fetch() -> str:
        raise LookupError("broken")

    with pytest.raises(ConnectionFailed, match="broken"):
        async with connect("ws://127.0.0.1:1/ws", token=fetch):
            pass


# Connecting


async def test_an_address_where_nobody_listens_is_given_up_in_time() -> None:
    with pytest.raises(ConnectionFailed, match=r"gave up after 0\.1 s"):
        async with connect(
            f"ws://127.0.0.1:{free_port()}/ws", token="t", connect_timeout_seconds=0.1
        ):
            pass


async def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(ConnectionFailed, match="isn't a valid URI"):
        async with connect("http://127.0.0.1/ws", token="t"):
            pass


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_a_refused_handshake_says_why(status: int) -> None:
    async with ScriptedServer([[{"refuse": status}]]) as server:
        with pytest.raises(ConnectionFailed, match=f"HTTP status {status}.*refused") as caught:
            async with connect(server.url, token="t"):
                pass
    assert caught.value.code == status


async def test_an_outage_that_lasts_too_long_ends_the_session() -> None:
    script = [[HELLO, WELCOME, request(), {"away": True}, {"drop": True}]]
    async with (
        ScriptedServer(script) as server,
        connect(server.url, token="t", give_up_after_seconds=0.1) as session,
    ):
        with pytest.raises(ConnectionFailed, match=r"gave up after 0\.1 s"):
            await session.request("m")
        assert session.state == "closed"
        with pytest.raises(ConnectionFailed, match=r"gave up after 0\.1 s"):
            session.request("m")


async def test_the_state_tells_whether_it_is_connected() -> None:
    script = [
        [HELLO, WELCOME, request(), {"drop": True}],
        [HELLO, AGAIN, request(), answer()],
    ]
    async with ScriptedServer(script) as server, connect(server.url, token="t") as session:
        states = [session.state]
        await session.request("m")
        states.append(session.state)
        assert session.reconnects == 1
    states.append(session.state)
    assert states == ["online", "online", "closed"]


# Requests


async def test_await_gives_a_single_result() -> None:
    async with (
        ScriptedServer([[HELLO, WELCOME, request(), answer({"x": 1})]]) as server,
        connect(server.url, token="t") as session,
    ):
        assert await session.request("m") == {"x": 1}


async def test_options_of_a_request_are_sent() -> None:
    fields = {"id": "mine", "method": "m", "timeout": 2, "on_disconnect": "cancel"}
    script = [
        [HELLO, WELCOME, {"expect": {"type": "request"} | fields}, answer(name="mine")],
    ]
    async with ScriptedServer(script) as server, connect(server.url, token="t") as session:
        await session.submit("m", {"class": 1}, id="mine", timeout=2, on_disconnect="cancel")


async def test_cancel_ends_a_running_request() -> None:
    script = [
        [
            HELLO,
            WELCOME,
            request(),
            {"send": [{"type": "accepted", "id": "$a", "n": 1}, result(0, "x")]},
            {"expect": {"type": "cancel", "id": "$a"}},
            {"send": [ERROR]},
        ]
    ]
    async with ScriptedServer(script) as server, connect(server.url, token="t") as session:
        handle = session.request("m")
        await anext(handle)
        handle.cancel()
        with pytest.raises(RequestFailed, match="cancelled"):
            await handle


async def test_ready_waits_while_the_window_is_full() -> None:
    limits = {"window": 1, "max_message_bytes": 1024, "max_result_bytes": 1024, "resume_seconds": 1}
    script = [
        [
            HELLO,
            {"welcome": {"limits": limits}},
            request("$a"),
            answer(),
            request("$b"),
            answer(name="$b", first_seq=2),
        ]
    ]
    async with ScriptedServer(script) as server, connect(server.url, token="t") as session:
        await session.ready()
        first = session.request("m")
        ready = asyncio.create_task(session.ready())
        await asyncio.sleep(0)
        assert not ready.done()
        await ready
        assert first.ended
        await session.request("m")


async def test_a_handle_that_is_thrown_away_lets_its_request_run() -> None:
    script = [
        [HELLO, WELCOME, request("$a"), request("$b"), answer("x"), answer(name="$b", first_seq=3)]
    ]
    async with ScriptedServer(script) as server, connect(server.url, token="t") as session:
        session.request("m")
        await session.request("m")
        assert session._rules.buffer.size_bytes == 0


async def test_no_more_is_read_while_results_that_nobody_took_fill_the_buffer() -> None:
    count, size = 200, 10_000
    results = [result(index, "x" * size) for index in range(count)]
    end = {"type": "done", "id": "$a", "seq": count + 1, "attempt": 1, "results": count}
    script = [[HELLO, WELCOME, request(), {"send_each": [*results, end]}]]
    limit = 3 * size
    most = 0
    async with (
        ScriptedServer(script) as server,
        connect(server.url, token="t", buffer_bytes=limit) as session,
    ):
        found = 0
        async for _ in session.request("m"):
            most = max(most, session._rules.buffer.size_bytes)
            found += 1
            await asyncio.sleep(0)
    assert found == count
    assert limit <= most + size
    assert most <= limit + size + ITEM_BYTES


async def test_a_session_that_stands_still_says_so_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("protocol.client.STALL_SECONDS", 0.001)
    script = [
        [HELLO, WELCOME, request("$a"), request("$b"), answer("x"), answer(name="$b", first_seq=3)]
    ]
    async with (
        ScriptedServer(script) as server,
        connect(server.url, token="t", buffer_bytes=1) as session,
    ):
        first, second = session.request("m"), session.request("m")
        while not caplog.records:
            await asyncio.sleep(0.001)
        assert await first.results() == ["x"]
        await second
    assert "results are not taken" in caplog.text


# Leaving


async def test_leaving_ends_what_is_unfinished_here_and_the_session_there() -> None:
    script = [[HELLO, WELCOME, request(), {"expect": {"type": "bye", "cancel": None}}, BYE]]
    async with ScriptedServer(script) as server, connect(server.url, token="t") as session:
        handle = session.request("m")
    with pytest.raises(ConnectionFailed, match="closed"):
        await handle


async def test_close_can_cancel_the_requests() -> None:
    script = [[HELLO, WELCOME, request(), {"expect": {"type": "bye", "cancel": True}}, BYE]]
    async with ScriptedServer(script) as server, connect(server.url, token="t") as session:
        session.request("m")
        await session.close(cancel=True)


async def test_what_arrived_is_acknowledged_before_detaching() -> None:
    script = [
        [
            HELLO,
            WELCOME,
            request(),
            {"send": [result(0, "x")]},
            {"expect": {"type": "ack", "seq": 1}},
            {"gone": True},
        ]
    ]
    async with ScriptedServer(script) as server, connect(server.url, token="t") as session:
        handle = session.request("m")
        await anext(handle)
        assert await session.detach() == "s"
        with pytest.raises(ConnectionFailed, match="detached"):
            await handle


async def test_a_program_can_take_over_a_session() -> None:
    manifest = [{"id": "theirs", "n": 1, "state": "running", "attempt": 1, "results": 0}]
    script = [
        [
            {"expect": {"type": "hello", "session": "s", "epoch": None}},
            {"welcome": {"resumed": True, "requests": manifest}},
            answer("x", name="theirs"),
        ]
    ]
    async with (
        ScriptedServer(script) as server,
        connect(server.url, token="t", resume="s") as session,
    ):
        handle = session.requests["theirs"]
        assert handle.n == 1
        assert await handle.results() == ["x"]


async def test_a_session_that_is_not_there_cannot_be_taken_over() -> None:
    script = [[HELLO, {"welcome": {"reason": "unknown_session"}}, {"gone": True}]]
    async with ScriptedServer(script) as server:
        with pytest.raises(ConnectionFailed, match="not there"):
            async with connect(server.url, token="t", resume="old"):
                pass


# The real server


@pytest.fixture
async def real(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    server = ServerProcess(tmp_path)
    await server.astart()
    yield server
    await asyncio.to_thread(server.close)


async def test_a_stream_survives_the_server_being_killed(real: ServerProcess) -> None:
    text = [str(number) for number in range(20)]
    found: list[str] = []
    async with connect(real.url, token=token()) as session:
        handle = session.request("words", text=" ".join(text), delay=0.01)
        async for word in handle:
            found.append(word)
            if len(found) == 5:
                await real.restart()
    assert found == text
    assert handle.attempt == 2


async def test_requests_survive_the_server_being_killed_again_and_again(
    real: ServerProcess,
) -> None:
    count = 300
    async with connect(real.url, token=token) as session:
        handles = [session.request("echo", text=number) for number in range(count)]
        for position in (0, 50, 150):
            await handles[position]
            await real.restart()
        assert [await handle for handle in handles] == list(range(count))
        assert [handle.n for handle in handles] == list(range(1, count + 1))


async def test_requests_survive_a_rolling_restart(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, drain_timeout=0.2)
    await server.astart()
    try:
        async with connect(server.url, token=token) as session:
            handles = [session.request("sleep", seconds=0.02) for _ in range(50)]
            await handles[0]
            assert await asyncio.to_thread(server.terminate) == 0
            await server.astart()
            assert [await handle for handle in handles] == [0.02] * 50
    finally:
        await asyncio.to_thread(server.close)


async def test_a_session_is_taken_over_from_a_real_server(real: ServerProcess) -> None:
    async with connect(real.url, token=token()) as session:
        handle = session.submit("words", {"text": "a b", "delay": 0.1}, id="mine")
        await anext(handle)
        name = await session.detach()
    async with connect(real.url, token=token(), resume=name) as session:
        assert await session.requests["mine"] == "b"


async def test_a_token_that_expires_is_refreshed_at_a_real_server(real: ServerProcess) -> None:
    tokens = Tokens(2)

    def fetch() -> str:
        tokens()
        return token(ttl_seconds=2)

    async with connect(real.url, token=fetch) as session:
        await tokens.enough.wait()
        assert await session.request("echo", text="x") == "x"
        assert session.reconnects == 0


async def test_a_token_of_another_secret_is_refused_by_a_real_server(real: ServerProcess) -> None:
    with pytest.raises(ConnectionFailed, match="unauthenticated") as caught:
        async with connect(real.url, token="not.a.token"):
            pass
    assert caught.value.code == 4501
