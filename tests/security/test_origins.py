"""Web pages of others that try to use a visitor's browser (cross-site WebSocket hijacking).

tests/unit/test_origins.py goes through what is compared, and how.
"""

import pytest

from tests.integration.test_connection import Wire, wire
from tests.raw import raw
from tests.security.attacks import exchange, status
from tests.security.test_connections import HANDSHAKE
from tests.server_process import ServerProcess, token

ALLOWED = "https://app.example"
FORBIDDEN, UNAUTHENTICATED = 4503, 4501


async def handshake(server: ServerProcess, client: Wire, headers: str) -> None:
    """Shake hands with these headers in place of `Host`."""
    text = HANDSHAKE.replace(b"Host: localhost\r\n", headers.encode("latin-1")) + b"\r\n"
    client.writer.write(text)
    assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")


async def close_code(server: ServerProcess, headers: str) -> int:
    """Return with what a connection is closed that says hello without a token."""
    async with wire(server) as client:
        await handshake(server, client, headers)
        client.send(0x1, b'{"type":"hello"}')
        return await client.closed()


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "https://evil.example",
        "https://app.example.evil.example",
        "https://evil-app.example",
        "https://evilapp.example",
        "https://app.example.",
        "https://app.example:444",
        "http://app.example",
        "wss://app.example",
        "https://app.example@evil.example",
        "https://evil.example/https://app.example",
        "https://app.example/",
        "https://app.example https://evil.example",
        "https://app.example,https://evil.example",
        "https://xn--pp-xka.example",
        "https://\xe4pp.example",
        "https://app%2eexample",
        "https://app.example\\.evil.example",
        "https://app.example#.evil.example",
        "file://",
        "*",
        "",
    ],
)
async def test_pages_of_others_are_sent_away(server: ServerProcess, origin: str) -> None:
    assert await close_code(server, f"Host: queue.example\r\nOrigin: {origin}\r\n") == FORBIDDEN


@pytest.mark.parametrize(
    "origin", [ALLOWED, "https://APP.example", "HTTPS://app.example:443", "https://queue.example"]
)
async def test_pages_of_listed_origins_and_of_the_server_itself_may_connect(
    server: ServerProcess, origin: str
) -> None:
    code = await close_code(server, f"Host: queue.example\r\nOrigin: {origin}\r\n")
    assert code == UNAUTHENTICATED  # it came as far as to be asked for a token


@pytest.mark.parametrize(
    "headers",
    [
        f"Origin: {ALLOWED}\r\nOrigin: https://evil.example\r\nHost: queue.example\r\n",
        "Host: queue.example\r\nHost: evil.example\r\nOrigin: https://evil.example\r\n",
        "Host: queue.example\r\nAuthorization: Bearer x\r\nAuthorization: Bearer y\r\n",
    ],
    ids=["Origin", "Host", "Authorization"],
)
async def test_a_header_that_is_there_twice_is_refused(server: ServerProcess, headers: str) -> None:
    """Two readers of the request must not believe different ones."""
    request = HANDSHAKE.replace(b"Host: localhost\r\n", headers.encode()) + b"\r\n"
    assert status(await exchange(server, request)) == 400


async def test_what_a_browser_sends_by_itself_is_no_token(server: ServerProcess) -> None:
    """So a page behind DNS rebinding, whose Origin and Host agree, is still nobody."""
    rebound = "Host: evil.example:8765\r\nOrigin: http://evil.example:8765\r\n"
    cookies = f"Cookie: token={token()}; session={token()}\r\n"
    assert await close_code(server, rebound + cookies) == UNAUTHENTICATED


async def test_a_browsers_basic_login_opens_no_socket(server: ServerProcess) -> None:
    headers = b"Host: localhost\r\nAuthorization: Basic ZGV2OmRldg==\r\n"
    request = HANDSHAKE.replace(b"Host: localhost\r\n", headers) + b"\r\n"
    assert status(await exchange(server, request)) == 401


async def test_no_response_invites_other_origins_to_read_it(server: ServerProcess) -> None:
    requests = b"GET /livez", b"POST /token", b"OPTIONS /token", b"GET /methods", b"GET /client.js"
    for request in requests:
        response = await exchange(
            server, request + b" HTTP/1.1\r\nHost: x\r\nOrigin: https://evil.example\r\n\r\n"
        )
        assert b"access-control-allow" not in response.lower()
        assert b"X-Content-Type-Options: nosniff" in response


async def test_a_program_without_an_origin_is_let_in(server: ServerProcess) -> None:
    """It could send any; what it needs is a token."""
    async with raw(server.url) as client:
        await client.hello()
