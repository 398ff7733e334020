"""Params, results, tokens, passwords, queries and headers are in no line of the log.

A text of its own stands for each of them, and takes every way through a real server on which
something goes wrong: at debug level, with asyncio's debug mode on.

What is logged of users: subject, session, method and address. What a handler puts into the message
of an exception it raises is the handler's text, and logged.
"""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import jwt
import pytest
import structlog.testing
from websockets.exceptions import ConnectionClosed, InvalidStatus

from server.listener import Listener
from server.sockets import listen
from tests.faults.server import FaultyServer
from tests.integration.test_http import basic, login, user
from tests.mongo import MongoDaemon
from tests.raw import RawClient, online, raw
from tests.security.attacks import exchange, status
from tests.server_process import SECRET, ServerProcess, token

PARAM = "canary-param"
PASSWORD = "canary-password"
QUERY = "canary-query"
HEADER = "canary-header"
FIELD = "canary-field"
TOKEN = "canary-token"
HANDLERS = "tests.security.canary_handlers:handlers"
POLL_SECONDS = 0.02

FAILING = {
    "crash": "handler_error",
    "crash_later": "handler_error",
    "crash_in_thread": "handler_error",
    "crash_in_process": "handler_error",
    "refuse": "sold_out",
    "refuse_badly": "sold_out",
    "no_json": "handler_error",
    "half_a_character": "handler_error",
    "too_much": "result_too_large",
}


class Debugged(FaultyServer):
    """A server that says all it can."""

    def __init__(self, directory: Path, journal: str | None = None, **settings: Any) -> None:
        variables = {"PYTHONASYNCIODEBUG": "1", "PYTHONDEVMODE": "1"}
        super().__init__(
            directory,
            journal,
            variables,
            handlers=HANDLERS,
            log_level="debug",
            max_result_bytes=100_000,
            **settings,
        )

    def events(self) -> str:
        return self.log.read_text()

    async def until(self, event: str) -> None:
        while event not in self.events():
            await asyncio.sleep(POLL_SECONDS)


async def ask(client: RawClient, method: str, **more: Any) -> None:
    await client.request(method, method, params={"text": PARAM}, **more)


async def fail_in_requests(server: ServerProcess) -> None:
    async with online(server.url) as client:
        for method, code in FAILING.items():
            await ask(client, method)
            assert (await client.next("error", method))["code"] == code
        await ask(client, "die_in_process")
        await client.next("done", "die_in_process")
        await ask(client, "block_the_loop")
        await client.next("done", "block_the_loop")
        await ask(client, "endless", timeout=0.1)
        await client.next("error", "endless")
        await client.request("unknown", f"{FIELD}-method", params={"text": PARAM})
        await client.next("error", "unknown")
        await client.request("invalid", "crash", params={FIELD: PARAM})
        await client.next("error", "invalid")
        await client.request("wrong", "crash", params={"text": [PARAM]})
        await client.next("error", "wrong")


async def say_bad_frames(server: ServerProcess) -> None:
    bad = [
        {"type": FIELD},
        {"type": "request", "id": "1", "method": [PARAM], "params": PARAM},
        {"type": "ack", "seq": PARAM},
        {"type": "hello", FIELD: PARAM, "token": [TOKEN]},
    ]
    for frame in bad:
        async with raw(server.url) as client:
            await client.send(frame)
            await client.closed()
        async with online(server.url) as client:
            await client.send(frame)
            await client.next("error")
    async with online(server.url) as client:
        await client.send(*[{"type": FIELD}] * 100)
        await client.closed()
    async with online(server.url) as client:
        await client.socket.send(PARAM.encode())
        await client.next("error")
        await client.socket.send(f"{{{PARAM}")
        await client.next("error")


async def come_with_bad_tokens(server: ServerProcess) -> None:
    forged = jwt.encode({"sub": "alice", "exp": 4e9}, "another-secret-" * 4, headers={"kid": TOKEN})
    strange = jwt.encode({"sub": "alice", "exp": TOKEN, "scope": {TOKEN: 1}}, SECRET)
    for given in (f"{TOKEN}.{TOKEN}.{TOKEN}", forged, strange, token(audience=TOKEN)):
        async with raw(server.url) as client:
            await client.send({"type": "hello", "token": given})
            await client.closed()
        async with online(server.url) as client:
            await client.send({"type": "refresh", "token": given})
            await client.closed()
        for header in (f"Bearer {given}", given, f"{TOKEN} {given}"):
            with pytest.raises(InvalidStatus):
                async with raw(server.url, {"Authorization": header}):
                    pass
    await asyncio.to_thread(user, server, "add", "bob", "--password-stdin", password=PASSWORD)
    for name, password in (("bob", PASSWORD), ("bob", f"{PASSWORD}-wrong"), (PASSWORD, PASSWORD)):
        await asyncio.to_thread(login, server, name, password)


async def ask_strangely(server: ServerProcess) -> None:
    for target in (f"/ws?token={QUERY}", f"/ws?{QUERY}", f"/{QUERY}?{QUERY}", f"//[{QUERY}"):
        lines = f"GET {target} HTTP/1.1\r\nHost: {HEADER}\r\nX-{HEADER}: {HEADER}\r\n\r\n"
        await exchange(server, lines.encode())
    await exchange(server, f"{HEADER} / {HEADER}\r\n\r\n".encode())
    await exchange(server, f"GET /ws HTTP/1.1\r\nHost: x\r\n{HEADER}\r\n\r\n".encode())
    with suppress(ConnectionClosed):
        async with raw(server.url, {"Origin": f"https://{HEADER}"}) as client:
            await client.closed()


async def crash_and_recover(server: Debugged, gate: Path) -> None:
    async with online(server.url) as client:
        params = {"text": PARAM, "path": str(gate.with_name("once"))}
        await client.request("once", "once", params=params)
        await client.next("accepted", "once")
    async with online(server.url) as client:
        await client.request("slow", "slow", params={"text": PARAM, "gate": str(gate)})
        await client.next("accepted", "slow")
        while not gate.with_name("once").exists():
            await asyncio.sleep(POLL_SECONDS)
        await server.restart()
    await server.until("request_interrupted")
    await server.until("request_replayed")
    gate.touch()


async def everything(server: Debugged, gate: Path) -> None:
    await fail_in_requests(server)
    await say_bad_frames(server)
    await come_with_bad_tokens(server)
    await ask_strangely(server)
    await crash_and_recover(server, gate)


def assert_kept_secret(log: str) -> None:
    for canary in (PARAM, PASSWORD, QUERY, HEADER, FIELD, TOKEN, SECRET):
        found = [line for line in log.splitlines() if canary in line]
        assert not found, f"{canary}: {found[0]}"
    for name, password in (("bob", PASSWORD), ("bob", f"{PASSWORD}-wrong")):
        assert basic(name, password).split()[1] not in log


async def test_what_clients_say_and_get_is_in_no_line_of_the_log(tmp_path: Path) -> None:
    server = Debugged(tmp_path)
    await server.astart()
    try:
        await everything(server, tmp_path / "gate")
        await asyncio.to_thread(server.terminate)
    finally:
        server.close()
    log = server.log.read_text()
    for event in ("handler_failed", "result_not_json", "process_died", "refused", "closing"):
        assert event in log
    assert_kept_secret(log)


async def test_nor_in_a_traceback_on_the_console(tmp_path: Path) -> None:
    """Where some show local variables."""
    server = Debugged(tmp_path, log_format="console")
    await server.astart()
    try:
        await fail_in_requests(server)
    finally:
        server.close()
    log = server.log.read_text()
    assert "| Traceback" in log
    assert_kept_secret(log)


async def test_nor_when_the_server_itself_fails_to_answer() -> None:
    """A bug of ours is logged with the path, which tells where it is, and without the query."""

    async def fail(*_: Any) -> None:
        raise RuntimeError("a bug")

    listener = Listener(fail, fail, open_timeout_seconds=60, max_message_bytes=1024)
    await listener.start(listen("127.0.0.1", 0))
    there: Any = listener
    with structlog.testing.capture_logs() as lines:
        answer = await exchange(there, f"GET /here?{QUERY} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    listener.stop_accepting()
    assert status(answer) == 500
    assert [(line["event"], line["path"]) for line in lines] == [("http_failed", "/here")]


async def test_nor_when_the_database_is_away(tmp_path: Path) -> None:
    """Drivers like to quote what they could not write."""
    (tmp_path / "mongo").mkdir()
    daemon = MongoDaemon(tmp_path / "mongo")
    daemon.start()
    server = Debugged(tmp_path, daemon.url("canaries"))
    try:
        await server.astart()
        async with online(server.url) as client:
            await ask(client, "block_the_loop")
            await client.next("done", "block_the_loop")
            assert daemon.process is not None
            # In good order: killed so soon it may not start again.
            daemon.process.terminate()
            await asyncio.to_thread(daemon.process.wait)
            await ask(client, "endless")
            await asyncio.gather(
                server.until_readiness("journal_unavailable"),
                asyncio.to_thread(login, server, "bob", PASSWORD),
            )
            await ask(client, "refuse")
            assert (await client.next("error", "refuse"))["code"] == "journal_unavailable"
            daemon.start()
            await client.next("accepted", "endless")
        server.kill()
    finally:
        server.close()
        daemon.close()
    log = server.log.read_text()
    assert "journal_unavailable" in log
    assert_kept_secret(log)
