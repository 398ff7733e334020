"""HTTP on the WebSocket's port: probes, tokens, and refused handshakes."""

import asyncio
import base64
import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.raw import online, raw
from tests.server_process import ServerProcess, token

Answer = tuple[int, dict[str, Any], dict[str, str]]


def ask(server: ServerProcess, path: str, method: str = "GET", **headers: str) -> Answer:
    """Return status, JSON body and headers (lower-case names)."""
    request = urllib.request.Request(f"{server.http}{path}", method=method, headers=headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            answer = response.status, response.read(), response.headers
    except urllib.error.HTTPError as error:
        answer = error.code, error.read(), error.headers
    status, body, fields = answer
    return status, json.loads(body), {name.lower(): value for name, value in fields.items()}


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def user(server: ServerProcess, *arguments: str, password: str = "") -> str:
    """Run `queuesystem user` beside the server; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "server", "user", *arguments],
        input=password,
        capture_output=True,
        text=True,
        check=True,
        cwd=server.directory,
        env=server.environment(),
    )
    return done.stdout


def login(server: ServerProcess, name: str, password: str) -> Answer:
    return ask(server, "/token", "POST", Authorization=basic(name, password))


def test_livez_and_readyz_say_yes(server: ServerProcess) -> None:
    assert ask(server, "/livez")[:2] == (200, {"status": "live"})
    assert ask(server, "/readyz")[:2] == (200, {"status": "ready"})


def test_an_unknown_path_says_what_there_is(server: ServerProcess) -> None:
    status, body, _ = ask(server, "/nothing")
    assert status == 404
    assert "/ws" in body["error"]


@pytest.mark.parametrize(("path", "method"), [("/readyz", "POST"), ("/token", "GET")])
def test_a_wrong_method_says_the_right_one(server: ServerProcess, path: str, method: str) -> None:
    status, _, headers = ask(server, path, method)
    assert status == 405
    assert headers["allow"] == ("GET" if method == "POST" else "POST")


async def test_a_user_gets_a_token_that_works(server: ServerProcess) -> None:
    await asyncio.to_thread(
        user, server, "add", "bob", "--password-stdin", password="correct horse"
    )
    status, body, headers = await asyncio.to_thread(login, server, "bob", "correct horse")
    assert (status, body["token_type"], headers["cache-control"]) == (200, "Bearer", "no-store")
    async with online(server.url, token=body["access_token"]) as client:
        await client.request("a", "whoami")
        assert (await client.next("result"))["data"]["subject"] == "bob"


def test_a_wrong_password_and_an_unknown_user_get_the_same_answer(
    server: ServerProcess,
) -> None:
    user(server, "add", "carol", "--password-stdin", password="correct horse")
    wrong = login(server, "carol", "wrong password")
    unknown = login(server, "nobody", "wrong password")
    assert wrong[0] == 401
    assert wrong[:2] == unknown[:2]
    assert wrong[2]["www-authenticate"] == unknown[2]["www-authenticate"]


def test_a_removed_user_gets_no_token(server: ServerProcess) -> None:
    user(server, "add", "dave", "--password-stdin", password="correct horse")
    assert "dave" in user(server, "list")
    user(server, "remove", "dave")
    assert login(server, "dave", "correct horse")[0] == 401


@pytest.mark.parametrize("value", ["Bearer x", "Basic !!!", "Basic bm9jb2xvbg=="])
def test_an_unreadable_login_is_answered_401(server: ServerProcess, value: str) -> None:
    status, body, headers = ask(server, "/token", "POST", Authorization=value)
    assert status == 401
    assert body["error"]
    assert headers["www-authenticate"].startswith("Basic ")


def test_failed_logins_are_limited(own_server: ServerProcess) -> None:
    own_server.start()
    statuses = [login(own_server, "nobody", "wrong password")[0] for _ in range(12)]
    assert statuses[0] == 401
    assert statuses[-1] == 429


@pytest.mark.parametrize(
    ("header", "status"),
    [(f"Bearer {token(ttl_seconds=-60)}", 401), ("Bearer x", 401), ("Basic eDp5", 401)],
)
async def test_a_bad_token_in_the_handshake_is_refused_there(
    server: ServerProcess, header: str, status: int
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with raw(server.url, {"Authorization": header}):
            pass
    assert refused.value.response.status_code == status
    assert json.loads(refused.value.response.body)["error"]


async def test_a_token_in_the_url_is_refused(server: ServerProcess) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with raw(f"{server.url}?token={token()}"):
            pass
    assert refused.value.response.status_code == 400
    assert b"hello frame" in refused.value.response.body


async def test_secrets_are_not_logged(own_server: ServerProcess) -> None:
    """Neither tokens nor params, whatever happens."""
    own_server.settings["log_level"] = "debug"
    own_server.start()
    canary = "canary-1234567890"
    bad = token(audience="somebody-else")
    async with raw(own_server.url) as client:
        await client.send({"type": "hello", "token": bad})
        await client.closed()
    async with online(own_server.url) as client:
        await client.request("a", params={"text": canary})
        await client.request("b", "words", params={"text": "x", canary: canary})
        await client.request("c", "fail", params={"message": canary})
        await client.next("error", "c")
    own_server.terminate()
    log = Path(own_server.log).read_text()
    assert "serving" in log
    assert canary not in log
    assert token()[:30] not in log
    assert bad not in log
