"""Guessing names and passwords at POST /token.

tests/unit/test_users.py holds how much work a login is, how many there may be, and for whom.
"""

import asyncio
import json
from collections.abc import Iterator

import pytest

from tests.integration.test_http import basic, user
from tests.security.attacks import status
from tests.security.conftest import HANDLERS
from tests.server_process import ServerProcess

PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with the user bob."""
    server = ServerProcess(tmp_path_factory.mktemp("door"), handlers=HANDLERS)
    server.start()
    user(server, "add", "bob", "--password-stdin", password=PASSWORD)
    yield server
    server.close()


_hosts = iter(range(2, 255))


@pytest.fixture
def address() -> str:
    """An address of this machine that nobody has guessed from."""
    return f"127.0.0.{next(_hosts)}"


async def login(
    server: ServerProcess, name: str, password: str, address: str, headers: str = ""
) -> bytes:
    """Ask for a token from `address`; return the whole response."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", server.port, local_addr=(address, 0)
    )
    authorization = f"Authorization: {basic(name, password)}\r\n"
    text = f"POST /token HTTP/1.1\r\nHost: x\r\n{authorization}{headers}\r\n"
    try:
        writer.write(text.encode())
        return await reader.read()
    finally:
        writer.close()


async def test_an_unknown_user_and_a_wrong_password_get_the_very_same_bytes(
    door: ServerProcess, address: str
) -> None:
    wrong = await login(door, "bob", "wrong password", address)
    assert status(wrong) == 401
    for name in ("nobody", "BOB", "", "' OR '1'='1"):
        assert await login(door, name, "wrong password", address) == wrong


async def test_an_address_that_guesses_is_stopped_whatever_it_claims_to_be(
    door: ServerProcess, address: str
) -> None:
    """Neither headers, which anybody can write, nor spellings of the name make it another."""
    names = ["bob", "Bob", "bOb", "BOB", "bob\t", " bob", "b\u00f6b", "\uff42ob", "bob\x00", "bob"]
    statuses: list[int] = []
    for guess, name in enumerate([*names, "bob", "eve"]):
        other = f"10.0.0.{guess}"
        headers = (
            f"X-Forwarded-For: {other}\r\nX-Real-IP: {other}\r\nForwarded: for={other}\r\n"
            f"True-Client-IP: {other}\r\n"
        )
        response = await login(door, name, f"wrong password {guess}", address, headers)
        statuses.append(status(response))
    assert statuses == [401] * 10 + [429] * 2
    assert b"Retry-After: " in response
    # And bob, elsewhere, does not notice.
    elsewhere = f"127.0.1.{address.rpartition('.')[2]}"
    response = await login(door, "bob", PASSWORD, elsewhere)
    assert status(response) == 200
    assert json.loads(response.partition(b"\r\n\r\n")[2])["token_type"] == "Bearer"


async def test_the_server_serves_others_while_it_computes_hashes(
    door: ServerProcess, address: str
) -> None:
    logins = [asyncio.ensure_future(login(door, "bob", PASSWORD, address)) for _ in range(6)]
    await asyncio.wait(logins, return_when=asyncio.FIRST_COMPLETED)
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status(await reader.read()) == 200
    writer.close()
    assert not all(one.done() for one in logins)
    assert [status(response) for response in await asyncio.gather(*logins)] == [200] * 6


async def test_a_password_too_long_to_be_one_costs_no_more_than_another(
    door: ServerProcess, address: str
) -> None:
    assert status(await login(door, "bob", "x" * 5000, address)) == 401
    assert status(await login(door, "bob", "x" * 9000, address)) == 431
