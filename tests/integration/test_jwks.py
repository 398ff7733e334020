"""The key set of an identity provider, served by a real HTTP server that misbehaves on request."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from server import jwks
from server.auth import KeysUnavailable, Unauthenticated, Verifier
from server.jwks import COOLDOWN_SECONDS, FRESH_SECONDS, KEEP_SECONDS, KeySet
from server.settings import Settings

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
OTHER = ed25519.Ed25519PrivateKey.generate()

ALGORITHMS = {type(RSA): "RS256", type(EC): "ES256", type(ED): "EdDSA"}

Answer = Callable[[BaseHTTPRequestHandler], None]


class Provider:
    """An identity provider: serves `keys`, or does what `answer` says; counts the fetches."""

    def __init__(self) -> None:
        self.keys: list[Any] = [jwk(ED, "ed")]
        self.answer: Answer = self.serve_keys
        self.fetches = 0
        self.asked = threading.Event()
        """Set when a request is there, before it is answered."""
        self.go = threading.Event()
        """Lets `hang` go on."""
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.fetches += 1
                provider.asked.set()
                with contextlib.suppress(OSError):  # clients hang up: some tests are about that
                    provider.answer(self)

            def log_message(self, *_arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/jwks"

    def serve_keys(self, request: BaseHTTPRequestHandler) -> None:
        respond(request, json.dumps({"keys": self.keys}).encode())

    def hang(self, request: BaseHTTPRequestHandler) -> None:
        self.go.wait(30)
        self.serve_keys(request)

    def close(self) -> None:
        self.go.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def respond(request: BaseHTTPRequestHandler, body: bytes, status: int = 200) -> None:
    request.send_response(status)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def jwk(private_key: Any, kid: str | None, **changes: Any) -> dict[str, Any]:
    """Return the public key as a JWK."""
    named = {} if kid is None else {"kid": kid}
    to_jwk: Any = jwt.get_algorithm_by_name(ALGORITHMS[type(private_key)]).to_jwk
    return to_jwk(private_key.public_key(), as_dict=True) | named | changes


def sign(key: Any = ED, kid: str | None = "ed", algorithm: str = "EdDSA", **claims: Any) -> str:
    payload = {"sub": "alice", "exp": int(time.time()) + 3600} | claims
    headers = None if kid is None else {"kid": kid}
    return jwt.encode(payload, key, algorithm=algorithm, headers=headers)


@pytest.fixture
def provider() -> Iterator[Provider]:
    one = Provider()
    yield one
    one.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def verifier(provider: Provider, clock: Clock) -> Verifier:
    keys = KeySet(provider.url, clock=clock)
    return Verifier([keys], audience=None, issuer=None, leeway_seconds=0)


async def subject(verifier: Verifier, token: str) -> str:
    return (await verifier.verify(token)).subject


# Good tokens


@pytest.mark.parametrize(
    ("private_key", "algorithm"), [(RSA, "RS256"), (EC, "ES256"), (ED, "EdDSA")]
)
async def test_a_token_signed_with_a_key_of_the_set_is_accepted(
    provider: Provider, verifier: Verifier, private_key: Any, algorithm: str
):
    provider.keys = [jwk(RSA, "RS256"), jwk(EC, "ES256"), jwk(ED, "EdDSA")]
    assert await subject(verifier, sign(private_key, algorithm, algorithm)) == "alice"


@pytest.mark.parametrize("kid_of_key", [None, "ed"])
async def test_a_token_without_key_id_is_tried_with_every_key_of_its_type(
    provider: Provider, verifier: Verifier, kid_of_key: str | None
):
    provider.keys = [jwk(RSA, "rsa"), jwk(OTHER, "other"), jwk(ED, kid_of_key)]
    assert await subject(verifier, sign(kid=None)) == "alice"


async def test_the_set_works_beside_a_secret(provider: Provider):
    settings = Settings(jwt_secret="s3cret-" * 8, jwt_jwks_url=provider.url)
    assert await subject(Verifier.from_settings(settings), sign()) == "alice"


async def test_a_token_signed_with_the_secret_fetches_nothing(provider: Provider):
    settings = Settings(jwt_secret="s3cret-" * 8, jwt_jwks_url=provider.url)
    await subject(Verifier.from_settings(settings), sign("s3cret-" * 8, algorithm="HS256"))
    assert provider.fetches == 0


async def test_keys_are_fetched_once(provider: Provider, verifier: Verifier):
    for _ in range(3):
        await subject(verifier, sign())
    assert provider.fetches == 1


async def test_a_known_key_waits_for_nothing(verifier: Verifier):
    await subject(verifier, sign())
    with pytest.raises(StopIteration):
        verifier.verify(sign()).send(None)  # without the event loop


async def test_concurrent_tokens_share_one_fetch(provider: Provider, verifier: Verifier):
    await asyncio.gather(*(subject(verifier, sign()) for _ in range(50)))
    assert provider.fetches == 1


async def test_one_token_that_gives_up_does_not_take_the_fetch_from_the_others(
    provider: Provider, verifier: Verifier
):
    provider.answer = provider.hang
    first, second = (asyncio.create_task(subject(verifier, sign())) for _ in range(2))
    await asyncio.to_thread(provider.asked.wait, 30)
    first.cancel()
    provider.go.set()
    assert await second == "alice"


# Bad tokens


async def test_a_wrong_key_under_a_known_id_is_refused(verifier: Verifier):
    with pytest.raises(Unauthenticated):
        await verifier.verify(sign(OTHER))


async def test_an_unknown_key_is_refused(verifier: Verifier):
    with pytest.raises(Unauthenticated):
        await verifier.verify(sign(OTHER, "other"))


async def test_a_known_id_with_another_algorithm_is_refused(provider: Provider, verifier: Verifier):
    provider.keys = [jwk(RSA, "rsa"), jwk(ED, "ed")]
    with pytest.raises(Unauthenticated):
        await verifier.verify(sign(RSA, "ed", "RS256"))


@pytest.mark.parametrize("algorithm", ["HS256", "none", "PS256"])
async def test_an_algorithm_that_no_set_is_for_fetches_nothing(
    provider: Provider, verifier: Verifier, algorithm: str
):
    key = {"HS256": "s3cret-" * 8, "none": None, "PS256": RSA}[algorithm]
    with pytest.raises(Unauthenticated):
        await verifier.verify(sign(key, "ed", algorithm))
    assert provider.fetches == 0


async def test_a_secret_in_the_set_checks_nothing(provider: Provider, verifier: Verifier):
    secret = jwt.utils.base64url_encode(b"s3cret-" * 8).decode()
    provider.keys.append({"kty": "oct", "k": secret, "kid": "oct"})
    with pytest.raises(Unauthenticated):
        await verifier.verify(sign("s3cret-" * 8, "oct", "HS256"))


@pytest.mark.parametrize(
    "changes",
    [
        {"use": "enc"},
        {"key_ops": ["sign"]},
        {"key_ops": 7},
        {"alg": "RS256"},
        {"alg": 7},
        {"kid": 7},
        {"d": "AAAA"},
        {"x": "AAAA"},
        {"x": 7},
        {"crv": "Ed448"},
        {"crv": ["Ed25519"]},
        {"kty": "RSA"},
        {"kty": None},
        {"kty": ["OKP"]},
    ],
)
def test_a_key_that_is_not_for_us_is_left_out(provider: Provider, changes: dict[str, Any]):
    provider.keys = [jwk(ED, "ed") | changes, jwk(OTHER, "other")]
    assert [key.kid for key in jwks.fetch_keys(provider.url)] == ["other"]


async def test_a_set_with_a_key_we_do_not_understand_still_works(
    provider: Provider, verifier: Verifier
):
    provider.keys = [None, 7, {}, {"kty": "new"}, jwk(EC, "ec", crv="P-999"), jwk(ED, "ed")]
    assert await subject(verifier, sign()) == "alice"


# Rotation


async def test_a_new_key_is_fetched_when_a_token_names_it(
    provider: Provider, verifier: Verifier, clock: Clock
):
    await subject(verifier, sign())
    provider.keys = [jwk(ED, "ed"), jwk(OTHER, "other")]
    clock.now += COOLDOWN_SECONDS
    assert await subject(verifier, sign(OTHER, "other")) == "alice"


async def test_unknown_keys_cause_one_fetch_per_interval(
    provider: Provider, verifier: Verifier, clock: Clock
):
    await subject(verifier, sign())
    clock.now += COOLDOWN_SECONDS
    flood = (verifier.verify(sign(OTHER, f"unknown {number}")) for number in range(100))
    await asyncio.gather(*flood, return_exceptions=True)
    for number in range(100):
        with pytest.raises((Unauthenticated, KeysUnavailable)):
            await verifier.verify(sign(OTHER, f"unknown {number}"))
    assert provider.fetches == 2


async def test_an_unknown_key_may_be_known_later_when_it_cannot_be_asked_for_now(
    verifier: Verifier,
):
    await subject(verifier, sign())
    with pytest.raises(KeysUnavailable):
        await verifier.verify(sign(OTHER, "other"))


async def test_known_keys_work_during_a_flood_of_unknown_ones(
    provider: Provider, verifier: Verifier, clock: Clock
):
    await subject(verifier, sign())
    clock.now += COOLDOWN_SECONDS
    provider.answer = provider.hang
    flood = [asyncio.create_task(verifier.verify(sign(OTHER, f"unknown {n}"))) for n in range(50)]
    await asyncio.to_thread(provider.asked.wait, 30)
    assert await subject(verifier, sign()) == "alice"
    provider.go.set()
    await asyncio.gather(*flood, return_exceptions=True)


async def test_a_withdrawn_key_is_refused_once_the_set_is_no_longer_fresh(
    provider: Provider, verifier: Verifier, clock: Clock
):
    await subject(verifier, sign())
    provider.keys = [jwk(OTHER, "other")]
    clock.now += FRESH_SECONDS
    with pytest.raises(Unauthenticated):
        await verifier.verify(sign())


# Outages


def garbage(request: BaseHTTPRequestHandler) -> None:
    respond(request, b"<html>")


def failure(request: BaseHTTPRequestHandler) -> None:
    respond(request, b"{}", 500)


def deep(request: BaseHTTPRequestHandler) -> None:
    respond(request, b"[" * 200_000)


def no_set(request: BaseHTTPRequestHandler) -> None:
    respond(request, b'{"keys": {"ed": 1}}')


def no_object(request: BaseHTTPRequestHandler) -> None:
    respond(request, b"[]")


def empty_set(request: BaseHTTPRequestHandler) -> None:
    respond(request, b'{"keys": []}')


def large(request: BaseHTTPRequestHandler) -> None:
    respond(request, json.dumps({"keys": [jwk(ED, "ed")], "x": "x" * 300_000}).encode())


def hang_up(request: BaseHTTPRequestHandler) -> None:
    request.close_connection = True


def no_http(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"SSH-2.0-OpenSSH\r\n")


def redirect(request: BaseHTTPRequestHandler) -> None:
    if request.path == "/elsewhere":
        respond(request, json.dumps({"keys": [jwk(ED, "ed")]}).encode())
        return
    request.send_response(302)
    request.send_header("Location", "/elsewhere")
    request.send_header("Content-Length", "0")
    request.end_headers()


MISBEHAVIOUR = [
    *(garbage, failure, deep, no_set, no_object, empty_set, large, hang_up, no_http, redirect),
]


@pytest.mark.parametrize("answer", MISBEHAVIOUR)
async def test_without_a_key_set_nobody_can_be_judged(
    provider: Provider, verifier: Verifier, answer: Answer
):
    provider.answer = answer
    with pytest.raises(KeysUnavailable):
        await verifier.verify(sign())


@pytest.mark.parametrize("answer", MISBEHAVIOUR)
async def test_known_keys_outlive_a_provider_that_fails(
    provider: Provider, verifier: Verifier, clock: Clock, answer: Answer
):
    await subject(verifier, sign())
    provider.answer = answer
    clock.now += FRESH_SECONDS
    assert await subject(verifier, sign()) == "alice"


async def test_a_provider_that_is_down_makes_tokens_wait(provider: Provider, verifier: Verifier):
    provider.close()
    with pytest.raises(KeysUnavailable):
        await verifier.verify(sign())


async def test_known_keys_work_while_the_provider_is_down(
    provider: Provider, verifier: Verifier, clock: Clock
):
    await subject(verifier, sign())
    provider.close()
    clock.now += KEEP_SECONDS - 1
    assert await subject(verifier, sign()) == "alice"


async def test_known_keys_are_given_up_when_the_provider_stays_down(
    provider: Provider, verifier: Verifier, clock: Clock
):
    await subject(verifier, sign())
    provider.close()
    clock.now += KEEP_SECONDS
    with pytest.raises(KeysUnavailable):
        await verifier.verify(sign())


async def test_an_unknown_key_cannot_be_judged_while_the_provider_is_down(
    provider: Provider, verifier: Verifier, clock: Clock
):
    await subject(verifier, sign())
    provider.close()
    clock.now += COOLDOWN_SECONDS
    with pytest.raises(KeysUnavailable):
        await verifier.verify(sign(OTHER, "other"))


async def test_a_provider_that_fails_is_asked_once_per_interval(
    provider: Provider, verifier: Verifier
):
    provider.answer = failure
    for _ in range(20):
        with pytest.raises(KeysUnavailable):
            await verifier.verify(sign())
    assert provider.fetches == 1


async def test_a_provider_that_recovers_is_asked_again(
    provider: Provider, verifier: Verifier, clock: Clock
):
    provider.answer = failure
    with pytest.raises(KeysUnavailable):
        await verifier.verify(sign())
    provider.answer = provider.serve_keys
    clock.now += COOLDOWN_SECONDS
    assert await subject(verifier, sign()) == "alice"


async def test_only_the_first_token_waits_for_an_outage_to_show(
    provider: Provider, verifier: Verifier, clock: Clock
):
    await subject(verifier, sign())
    provider.answer = failure
    clock.now += FRESH_SECONDS
    await subject(verifier, sign())
    provider.answer = provider.hang
    clock.now += COOLDOWN_SECONDS
    with pytest.raises(StopIteration):
        verifier.verify(sign()).send(None)  # would yield if it waited
    provider.go.set()


async def test_a_provider_that_hangs_makes_tokens_wait_no_longer_than_the_timeout(
    provider: Provider, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(jwks, "FETCH_SECONDS", 0.05)
    provider.answer = provider.hang
    with pytest.raises(KeysUnavailable):
        await verifier.verify(sign())


async def test_a_provider_that_hangs_is_not_asked_again_meanwhile(
    provider: Provider, verifier: Verifier, clock: Clock
):
    provider.answer = provider.hang
    first = asyncio.create_task(subject(verifier, sign()))
    await asyncio.to_thread(provider.asked.wait, 30)
    clock.now += COOLDOWN_SECONDS
    second = asyncio.create_task(subject(verifier, sign()))
    await asyncio.sleep(0)  # lets it run up to the fetch
    provider.go.set()
    await asyncio.gather(first, second)
    assert provider.fetches == 1


def test_a_provider_that_answers_byte_by_byte_is_cut_off(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
):
    def drip(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while True:
            request.wfile.write(b" ")

    monkeypatch.setattr(jwks, "FETCH_SECONDS", 0.05)
    monkeypatch.setattr(jwks, "KEY_SET_BYTES_MAX", 2**40)
    provider.answer = drip
    with pytest.raises(jwks.FetchError, match="takes too long"):
        jwks.fetch_keys(provider.url)


def test_a_proxy_is_not_asked_for_what_is_on_this_machine(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert jwks.fetch_keys(provider.url)


def test_a_huge_set_is_cut_to_a_bounded_number_of_keys(provider: Provider):
    provider.keys = [jwk(ED, str(number)) for number in range(jwks.KEYS_MAX + 1)]
    assert len(jwks.fetch_keys(provider.url)) == jwks.KEYS_MAX
