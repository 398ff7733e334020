"""Texts of strangers and of operators: taken, or refused with the error that is documented."""

import asyncio
import base64
import json
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any

import jwt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.http11 import Request as HttpRequest
from websockets.server import ServerProtocol

from scripts.fuzzing.frames import REQUESTS
from server import demo
from server.auth import Identity, Unauthenticated, Verifier
from server.console import console_files
from server.http import HttpRoutes
from server.keys import FixedKeys, secret_key
from server.origins import Origins
from server.params import InvalidParams, Params
from server.readiness import Readiness
from server.request import Request
from server.settings import Settings, SettingsError, load, read_dotenv, settings_table
from server.users import LoginRefused
from tests.fuzz.texts import json_text, mutated

SECRET = "x" * 32
VERIFIER = Verifier([FixedKeys([secret_key(SECRET)])], audience=None, issuer=None, leeway_seconds=0)


# Params


class Colour(Enum):
    RED = "red"


async def handler(
    request: Request,
    text: str,
    number: int = 0,
    colour: Colour = Colour.RED,
    anything: Any = None,
    names: tuple[str, ...] = (),
    table: dict[str, list[float]] | None = None,
) -> None:
    """Take params of many types."""


PARAMS = Params(handler)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=100)
    | json_text.map(str.encode)
    | st.dictionaries(
        st.sampled_from(("text", "number", "colour", "anything", "names", "table", "more")),
        json_text,
    ).map(lambda fields: ("{" + ",".join(f'"{k}":{v}' for k, v in fields.items()) + "}").encode())
)
def test_params_are_of_their_types_or_invalid(data: bytes) -> None:
    try:
        text, number, colour, _anything, names, table = PARAMS.decode(data)
    except InvalidParams:
        return
    assert isinstance(text, str)
    assert isinstance(number, int)
    assert isinstance(colour, Colour)
    assert all(isinstance(name, str) for name in names)
    assert table is None or all(isinstance(key, str) for key in table)


# Tokens


def verify(token: str) -> Identity:
    return asyncio.run(VERIFIER.verify(token))


def part(text: str | bytes) -> str:
    data = text.encode() if isinstance(text, str) else text
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


any_text = st.text(max_size=300)
tokens = st.one_of(
    any_text,
    st.builds(lambda a, b, c: ".".join(map(part, (a, b, c))), json_text, json_text, st.binary()),
    st.builds(lambda head: f"{part(head)}.{part('{}')}.{part('x')}", json_text),
    mutated(st.just(jwt.encode({"sub": "a", "exp": 4e9}, SECRET).encode())).map(
        lambda data: data.decode("latin-1")
    ),
)


@settings(max_examples=300, deadline=None)
@given(tokens)
def test_a_token_nobody_signed_is_refused_without_being_quoted(token: str) -> None:
    problem = ""
    try:
        assert verify(token).subject == "a"  # the mutation changed nothing
    except Unauthenticated as error:
        problem = str(error)
    assert len(token) < 12 or token not in problem


claims = st.dictionaries(
    st.sampled_from(("sub", "exp", "nbf", "iat", "aud", "iss", "scope", "jti")),
    st.none() | st.booleans() | st.integers() | st.floats() | any_text | st.lists(any_text),
)


@settings(max_examples=300, deadline=None)
@given(claims)
def test_any_claims_that_were_signed_are_believed_or_refused(claims: dict[str, Any]) -> None:
    body = part(json.dumps({"sub": "alice", "exp": 4_000_000_000} | claims))
    signed = jwt.api_jws.encode(b"", SECRET).split(".")[0] + "." + body
    key = jwt.get_algorithm_by_name("HS256")
    signature = key.sign(signed.encode(), SECRET.encode())
    with suppress(Unauthenticated):
        identity = verify(f"{signed}.{part(signature)}")
        assert identity.subject.isprintable()
        assert identity.subject
        assert all(isinstance(scope, str) for scope in identity.scopes)


# HTTP


class NoConnection:
    id = "c0ffee"
    address = "192.0.2.1"
    identity = None


class NoAccounts:
    async def login(self, name: str, password: str, address: str) -> None:
        assert isinstance(name + password, str)
        raise LoginRefused


def routes() -> HttpRoutes:
    accounts: Any = NoAccounts()
    return HttpRoutes(
        verifier=VERIFIER,
        accounts=accounts,
        issue=lambda _user: ("token", 1.0),
        readiness=lambda: Readiness([], recovering=False),
        handlers=demo.handlers,
        files=console_files(),
    )


requests = st.one_of(
    mutated(st.sampled_from(REQUESTS)),
    st.builds(
        lambda method, path, name, value: (
            b"%b %b HTTP/1.1\r\nHost: x\r\n%b: %b\r\n\r\n" % (method, path, name, value)
        ),
        st.sampled_from((b"GET", b"POST", b"OPTIONS")),
        st.sampled_from((b"/ws", b"/token", b"/livez", b"/methods", b"/")) | st.binary(max_size=30),
        st.sampled_from((b"Authorization", b"Origin", b"Host", b"If-None-Match")),
        st.binary(max_size=60) | st.binary(max_size=60).map(lambda data: b"Basic " + data),
    ),
)


@settings(max_examples=400, deadline=None)
@given(requests)
def test_any_request_is_answered(data: bytes) -> None:
    protocol = ServerProtocol()
    protocol.receive_data(data)
    connection: Any = NoConnection()
    for event in protocol.events_received():
        if isinstance(event, HttpRequest):
            response = asyncio.run(routes()(connection, event))
            if response is not None:
                assert 200 <= response.status_code < 500
                response.serialize()


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60), st.none() | st.text(max_size=60))
def test_any_origin_is_allowed_or_not(origin: str, host: str | None) -> None:
    origins = Origins(["https://app.example"])
    allowed = origins.allows(origin, host)
    assert not allowed or "://" in origin


# Settings


FLAGS = [row.name for row in settings_table()]


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(FLAGS), any_text | json_text, max_size=4))
def test_any_text_of_a_setting_is_taken_or_refused_by_name(values: dict[str, str]) -> None:
    environ = {f"QUEUESYSTEM_{name.upper()}": text for name, text in values.items()}
    problem = ""
    try:
        assert isinstance(load({}, environ, {}), Settings)
    except SettingsError as error:
        problem = str(error)
    assert not problem or any(name in problem for name in environ)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.binary(max_size=200) | mutated(st.just(b"QUEUESYSTEM_WINDOW='16' # x\n")))
def test_any_dotenv_file_is_read_or_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / ".env"
    path.write_bytes(content)
    with suppress(SettingsError):
        entries = read_dotenv(path)
        assert all(isinstance(value, str) for value in entries.values())
