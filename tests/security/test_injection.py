"""What is sent as data and hopes to be taken as something else: a path, a query, a log line."""

import json

import pytest

from tests.raw import online, raw
from tests.security.attacks import exchange, status
from tests.server_process import ServerProcess, token

# Paths

PATHS = [
    "/etc/passwd",
    "/../../../../etc/passwd",
    "/..%2f..%2f..%2fetc%2fpasswd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/ws/../../etc/passwd",
    "/ws/../livez",
    "//etc/passwd",
    "file:///etc/passwd",
    "http://127.0.0.1/etc/passwd",
    "/livez%00.html",
    "/.env",
    "/queuesystem.db",
    "/server/settings.py",
    "*",
    "/index.html",
    "/web/index.html",
    "/server/web/console.js",
    "/console.js/",
    "/./console.js",
    "/ws/../console.js",
    "//console.js",
    "/console%2ejs",
    "/Console.js",
    "/client.py",
    "/client.d.ts",
]


@pytest.mark.parametrize("path", PATHS)
async def test_no_file_but_those_of_the_console_is_served_whatever_the_path(
    server: ServerProcess, path: str
) -> None:
    response = await exchange(server, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert status(response) == 404
    assert b"root:" not in response


@pytest.mark.parametrize("path", ["//[", "http://[", "//[::1", "/ws?%zz=%", "/ws?a=1;token"])
async def test_a_url_that_cannot_be_read_is_the_clients_fault(
    server: ServerProcess, path: str
) -> None:
    response = await exchange(server, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert 400 <= status(response) < 500
    assert "http_failed" not in server.log.read_text()


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "CONNECT", "PUT", "get"])
async def test_other_methods_get_405_and_no_more(server: ServerProcess, method: str) -> None:
    response = await exchange(server, f"{method} /livez HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert status(response) == 405


# Log lines

FORGED = "2026-01-01 [info] user_promoted"
FRAMES = [
    r'{"type":"\n' + FORGED + '"}',
    r'{"type":"\r\u001b[2J\u001b]0;' + FORGED + r'\u0007"}',
    r'{"type":"\u2028' + FORGED + r'\u202e\u009b"}',
    r'{"\n' + FORGED + '":1}',
    "\x0b\x0c\x85" + FORGED,
]


@pytest.mark.parametrize("log_format", ["console", "json"])
async def test_nobody_writes_a_log_line_of_his_own(
    own_server: ServerProcess, log_format: str
) -> None:
    own_server.settings |= {"log_format": log_format, "log_level": "debug"}
    await own_server.astart()
    for frame in FRAMES:
        async with raw(own_server.url) as client:
            await client.socket.send(frame)
            await client.closed()
    async with online(own_server.url) as client:
        await client.request(
            "\n" + FORGED, "fail", params={"crash": True, "message": "\n" + FORGED}
        )
        await client.next("error")
    for path in ("/ws\x1b[2J", "//[" + FORGED, "/\x0b" + FORGED):
        await exchange(own_server, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    own_server.terminate()
    log = own_server.log.read_bytes().decode()
    assert "user_promoted" in log  # it was logged, as data
    lines = log.rstrip("\n").split("\n")
    assert not [line for line in lines if line.startswith(FORGED)]
    assert not [sign for sign in log if ord(sign) in {*range(32), *range(127, 160)} - {10}]
    assert not set(log) & set("\u2028\u2029\u202a\u202b\u202c\u202d\u202e")
    if log_format == "json":
        assert all(isinstance(json.loads(line), dict) for line in lines)


@pytest.mark.parametrize(
    "subject", ["a\nb", "a\x1b[2Jb", "\x00", "a\u2028b", "a\u202eb", "a\x85b", "\ufeff", "x" * 4096]
)
async def test_a_subject_that_could_forge_a_line_is_nobody(
    server: ServerProcess, subject: str
) -> None:
    async with raw(server.url) as client:
        await client.send({"type": "hello", "token": token(subject)})
        code, reason = await client.closed()
        assert code == 4501
        assert "printable" in reason
