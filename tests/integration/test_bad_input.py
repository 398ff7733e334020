"""Bad input gets an answer that says what was wrong; good input beside it is not harmed."""

from typing import Any

import jwt
import pytest

from tests.raw import Frame, RawClient, online, raw
from tests.server_process import SECRET, ServerProcess, token, unique

OTHER_SECRET = "another-secret-" + "y" * 32


async def refusal_of(client: RawClient, text: str | bytes) -> Frame:
    """Send a message; return the error that answers it."""
    await client.socket.send(text)
    return await client.next("error")


async def still_works(client: RawClient) -> None:
    """Run a request to its end."""
    await client.request(id_ := unique(), params={"text": "fine"})
    await client.next("done", id_)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("hello there", "malformed"),
        ("[1, 2]", "object"),
        ('"text"', "object"),
        ("null", "object"),
        ("\n \n", "no frame"),
        ('{"id":"x"}', "`type`"),
        ('{"type":"requests","id":"x"}', "requests"),
        ('{"type":"request","method":"echo"}', "`id`"),
        ('{"type":"request","id":7,"method":"echo"}', "`$.id`"),
        ('{"type":"request","id":"","method":"echo"}', "`$.id`"),
        ('{"type":"request","id":"%s","method":"echo"}' % ("x" * 129), "`$.id`"),
        ('{"type":"request","id":"a","method":5}', "`$.method`"),
        ('{"type":"request","id":"a","method":""}', "`$.method`"),
        ('{"type":"request","id":"a","method":"echo","timeout":0}', "`$.timeout`"),
        ('{"type":"request","id":"a","method":"echo","on_disconnect":"x"}', "`$.on_disconnect`"),
        ('{"type":"ack","seq":"1"}', "`$.seq`"),
        ('{"type":"ack","seq":-1}', "`$.seq`"),
        ('{"type":"ack","seq":99999}', "beyond"),
        ('{"type":"cancel","id":"nobody"}', "no request of that id"),
        ("[" * 3000, ""),
        (b'{"type":"ack","seq":0}', "binary"),
        ('{"type":"hello"}', "this connection has said it"),
    ],
)
async def test_a_bad_frame_is_refused_naming_what_is_wrong(
    server: ServerProcess, text: str | bytes, named: str
) -> None:
    async with online(server.url) as client:
        error = await refusal_of(client, text)
        assert error["code"] == "bad_frame"
        assert named in error["message"]
        assert "seq" not in error
        await still_works(client)


async def test_a_bad_frame_does_not_hide_the_good_one_beside_it(server: ServerProcess) -> None:
    async with online(server.url) as client:
        good = '{"type":"request","id":"good","method":"echo","params":{"text":1}}'
        await client.socket.send(f"nonsense\n{good}\n{{}}")
        frames = await client.until("done", "good")
        assert [f["code"] for f in frames if f["type"] == "error"] == ["bad_frame"] * 2


async def test_unknown_fields_are_ignored(server: ServerProcess) -> None:
    async with online(server.url) as client:
        await client.request("a", params={"text": 1}, priority=9)
        await client.next("done", "a")


@pytest.mark.parametrize(
    ("method", "params", "code", "named"),
    [
        ("ecko", {"text": 1}, "unknown_method", "echo"),
        ("words", {"text": 5}, "invalid_params", "`$.text`"),
        ("words", {}, "invalid_params", "`text`"),
        ("words", {"text": "a", "limits": 3}, "invalid_params", "`limits`"),
        ("words", [1], "invalid_params", "object"),
        ("words", {"text": "a", "delay": 99}, "invalid_params", "`$.delay`"),
        ("secret", {}, "forbidden", "admin"),
    ],
)
async def test_a_request_that_cannot_run_is_refused_before_it_is_accepted(
    server: ServerProcess, method: str, params: Any, code: str, named: str
) -> None:
    async with online(server.url) as client:
        await client.request("a", method, params=params)
        error = await client.receive()
        assert (error["type"], error["code"], error["id"]) == ("error", code, "a")
        assert named in error["message"]
        assert not error["retryable"]
        await still_works(client)


async def test_a_method_with_a_scope_runs_for_who_has_it(server: ServerProcess) -> None:
    async with online(server.url, token=token(scope="read admin")) as client:
        await client.request("a", "secret")
        assert (await client.next("result"))["data"] == "for admins"


async def test_a_full_window_is_answered_and_can_be_used_again_later(
    server: ServerProcess,
) -> None:
    async with online(server.url) as client:
        await client.send(
            *({"type": "request", "id": str(n), "method": "endless"} for n in range(5))
        )
        error = await client.next("error")
        assert (error["id"], error["code"], error["retryable"]) == ("4", "window_exceeded", True)
        await client.send(*({"type": "cancel", "id": str(n)} for n in range(4)))
        await client.all_of(*(("error", str(n)) for n in range(4)))
        await still_works(client)


async def test_a_message_over_the_limit_closes_with_1009(server: ServerProcess) -> None:
    async with online(server.url) as client:
        await client.socket.send("x" * 5000)
        assert (await client.closed())[0] == 1009


async def test_a_request_before_hello_closes_with_4500(server: ServerProcess) -> None:
    async with raw(server.url) as client:
        await client.request("a")
        assert "must be a hello" in (await client.next("error"))["message"]
        code, reason = await client.closed()
        assert code == 4500
        assert reason.startswith("bad_frame: ")


async def test_a_request_beside_hello_closes_with_4500(server: ServerProcess) -> None:
    async with raw(server.url) as client:
        hello: Frame = {"type": "hello", "token": token()}
        await client.send(hello, {"type": "request", "id": "a", "method": "echo"})
        assert "wait for welcome" in (await client.next("error"))["message"]
        assert (await client.closed())[0] == 4500


async def test_a_second_hello_is_refused(server: ServerProcess) -> None:
    async with online(server.url) as client:
        await client.send({"type": "hello", "token": token()})
        assert (await client.next("error"))["code"] == "bad_frame"
        await still_works(client)


async def test_saying_nothing_closes_with_4408(server: ServerProcess) -> None:
    async with raw(server.url) as client:
        assert (await client.closed())[0] == 4408


async def test_an_unknown_session_is_a_new_one_with_the_reason(server: ServerProcess) -> None:
    async with raw(server.url) as client:
        welcome = await client.hello(session="nobody-has-this", epoch="e", seq=3)
        assert not welcome["resumed"]
        assert welcome["reason"] == "unknown_session"
        assert welcome["session"] != "nobody-has-this"
        await still_works(client)


async def test_somebody_elses_session_looks_like_an_unknown_one(server: ServerProcess) -> None:
    async with raw(server.url) as alice, raw(server.url) as mallory:
        mine = await alice.hello()
        theirs = await mallory.hello(token=token("mallory"), session=mine["session"])
        assert (theirs["resumed"], theirs["reason"]) == (False, "unknown_session")
        assert theirs["session"] != mine["session"]
        await still_works(alice)


def unsigned(**claims: Any) -> str:
    return jwt.encode({"sub": "alice", "exp": 4_000_000_000, **claims}, None, algorithm="none")


@pytest.mark.parametrize(
    ("bad", "code", "named"),
    [
        (token(ttl_seconds=-60), 4401, "expired"),
        (unsigned(), 4501, "no key and algorithm accepted"),
        (jwt.encode({"sub": "a", "exp": 4e9}, OTHER_SECRET), 4501, "no key and algorithm"),
        (token(audience="somebody-else"), 4501, "audience"),
        (jwt.encode({"sub": "alice"}, SECRET), 4501, "`exp`"),
        (jwt.encode({"exp": 4e9}, SECRET), 4501, "`sub`"),
        (jwt.encode({"sub": "a", "exp": 4e9, "nbf": 4e9 - 1}, SECRET), 4501, "not valid yet"),
        ("not-a-token", 4501, "no JWT"),
    ],
)
async def test_a_bad_token_closes_with_its_reason(
    server: ServerProcess, bad: str, code: int, named: str
) -> None:
    async with raw(server.url) as client:
        await client.send({"type": "hello", "token": bad})
        closed, reason = await client.closed()
        assert closed == code
        assert reason.startswith("unauthenticated: ")
        assert named in reason
        assert bad not in reason


async def test_no_token_closes_with_4501(server: ServerProcess) -> None:
    async with raw(server.url) as client:
        await client.send({"type": "hello"})
        code, reason = await client.closed()
        assert code == 4501
        assert "no token" in reason


async def test_a_handler_that_raises_ends_with_an_error_that_shows_no_internals(
    server: ServerProcess,
) -> None:
    async with online(server.url) as client:
        await client.request("a", "fail", params={"crash": True, "message": "the password is 42"})
        error = await client.next("error", "a")
        assert (error["code"], error["seq"]) == ("handler_error", 1)
        assert "42" not in error["message"]
        await still_works(client)


async def test_a_handlers_own_error_comes_through(server: ServerProcess) -> None:
    async with online(server.url) as client:
        await client.request("a", "fail", params={"code": "sold_out", "message": "none left"})
        error = await client.next("error", "a")
        assert (error["code"], error["message"]) == ("sold_out", "none left")
        assert error["details"] == {"attempt": 1}


async def test_a_result_that_json_cannot_hold_ends_with_handler_error(
    server: ServerProcess,
) -> None:
    async with online(server.url) as client:
        await client.request("a", "unserialisable")
        error = await client.next("error", "a")
        assert error["code"] == "handler_error"
        assert "JSON" in error["message"]
        await still_works(client)


@pytest.mark.parametrize("method", ["endless", "stubborn"])
async def test_a_handler_that_never_ends_ends_with_timeout(
    server: ServerProcess, method: str
) -> None:
    async with online(server.url) as client:
        await client.request("a", method, timeout=0.05)
        if method == "endless":
            assert (await client.next("error", "a"))["code"] == "timeout"
            await still_works(client)
        else:
            # It swallows every cancellation; its session waits, all others do not.
            await client.next("result", "a")
            async with online(server.url) as other:
                await still_works(other)


async def test_results_over_the_limit_end_with_result_too_large(server: ServerProcess) -> None:
    async with online(server.url) as client:
        await client.request("a", "flood", params={"count": 100, "size": 1000})
        error = await client.next("error", "a")
        assert error["code"] == "result_too_large"
        assert "acknowledge" in error["message"]
        await client.send({"type": "ack", "seq": error["seq"]})
        await still_works(client)


async def test_too_much_unacknowledged_is_answered_until_it_is_acknowledged(
    server: ServerProcess,
) -> None:
    async with online(server.url) as client:
        for n in range(8):
            await client.request(str(n), params={"text": n})
            last = await client.next("done", str(n))
        await client.request("more", params={"text": 9})
        error = await client.next("error", "more")
        assert (error["code"], error["retryable"]) == ("window_exceeded", True)
        assert "send ack" in error["message"]
        await client.send({"type": "ack", "seq": last["seq"]})
        await still_works(client)


async def test_one_id_for_two_requests_is_a_conflict(server: ServerProcess) -> None:
    async with online(server.url) as client:
        await client.request("a", params={"text": 1})
        await client.next("done", "a")
        await client.request("a", params={"text": 2})
        assert (await client.next("error", "a"))["code"] == "id_conflict"


async def test_a_page_of_another_origin_is_refused(server: ServerProcess) -> None:
    async with raw(server.url, {"Origin": "https://evil.example"}) as client:
        code, reason = await client.closed()
        assert code == 4503
        assert "origin" in reason


async def test_a_page_of_this_server_may_connect(server: ServerProcess) -> None:
    async with raw(server.url, {"Origin": server.http}) as client:
        await client.hello()
