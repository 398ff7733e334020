"""Tokens that want to be believed (RFC 8725), against the real server over real sockets.

tests/unit/test_auth.py goes through the same rules one by one, with their messages.
"""

import base64
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from websockets.exceptions import ConnectionClosed

from tests.raw import raw
from tests.server_process import SECRET, ServerProcess
from tests.unit.test_auth import claims, private_pem, public_pem, sign_by_hand

EXPIRED, UNAUTHENTICATED, BAD_HELLO = 4401, 4501, 4500
KEY = SECRET.encode()


async def answer(server: ServerProcess, given: str) -> tuple[int, str]:
    """Say hello with a token; return close code and reason, or (0, subject) when it is taken."""
    async with raw(server.url) as client:
        await client.send({"type": "hello", "token": given})
        try:
            await client.next("welcome")
        except ConnectionClosed:
            return await client.closed()
        await client.request("a", "whoami")
        return 0, (await client.next("result"))["data"]["subject"]


def forged(header: dict[str, Any], key: bytes = KEY, **changes: Any) -> str:
    """Return a token with that header, signed with `key`."""
    return sign_by_hand(header, json.dumps(claims(**changes)).encode(), key)


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unsigned(algorithm: str) -> str:
    return forged({"alg": algorithm}).rpartition(".")[0] + "."


MINE = ed25519.Ed25519PrivateKey.generate()
MY_JWK = jwt.algorithms.OKPAlgorithm.to_jwk(MINE.public_key(), as_dict=True)


async def test_a_good_token_is_taken(server: ServerProcess) -> None:
    assert await answer(server, forged({"alg": "HS256"})) == (0, "alice")


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "", "HS256 ", "hs256"])
async def test_without_a_signature_nobody_is_believed(
    server: ServerProcess, algorithm: str
) -> None:
    assert (await answer(server, unsigned(algorithm)))[0] == UNAUTHENTICATED


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
async def test_a_token_does_not_choose_the_algorithm(server: ServerProcess, algorithm: str) -> None:
    given = jwt.encode(claims(), SECRET * 2, algorithm=algorithm)
    assert (await answer(server, given))[0] == UNAUTHENTICATED


@pytest.mark.parametrize(
    "kid", ["../../../dev/null", "/dev/null", "' UNION SELECT '", "http://127.0.0.1/", "x\x00y", ""]
)
async def test_a_key_id_is_no_path_no_query_and_no_url(server: ServerProcess, kid: str) -> None:
    empty_key = forged({"alg": "HS256", "kid": kid}, key=b"")
    assert (await answer(server, empty_key))[0] == UNAUTHENTICATED


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c"])
async def test_a_token_does_not_bring_its_own_key(server: ServerProcess, name: str) -> None:
    value: Any = MY_JWK if name == "jwk" else f"{server.http}/key"
    given = jwt.encode(claims(), MINE, algorithm="EdDSA", headers={name: value})
    assert (await answer(server, given))[0] == UNAUTHENTICATED


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"], "exp": 1},
        {"crit": ["b64"], "b64": False},
        {"crit": []},
        {"crit": "exp"},
        {"b64": False},
        {"zip": "DEF", "crit": ["zip"]},
    ],
    ids=json.dumps,
)
async def test_an_extension_that_must_be_understood_is_not_passed_over(
    server: ServerProcess, header: dict[str, Any]
) -> None:
    """RFC 7515 section 4.1.11; CVE-2026-32597 was PyJWT passing over `crit`."""
    assert (await answer(server, forged({"alg": "HS256"} | header)))[0] == UNAUTHENTICATED


@pytest.mark.parametrize(
    "given",
    [
        ".".join(["e30"] * 5),
        encoded(b'{"alg":"dir","enc":"A128GCM"}') + "..AAAA.AAAA.AAAA",
        encoded(b"[" * 5000) + ".e30.AAAA",
        encoded(b'{"alg":' * 1500) + ".e30.AAAA",
        encoded(b'{"alg":"HS256","kid":' + b"9" * 5000 + b"}") + ".e30.AAAA",
        encoded(b'{"alg":"HS256"}\x00') + ".e30.AAAA",
        forged({"alg": "HS256"}) + "\x00",
        " " + forged({"alg": "HS256"}),
        "\u0435yJ0.e30.AAAA",
    ],
    ids=[
        "five parts",
        "an encrypted one",
        "nested header",
        "nested objects",
        "a number of 5,000 digits",
        "NUL in the header",
        "NUL behind it",
        "a space before it",
        "a Cyrillic letter",
    ],
)
async def test_what_only_looks_like_a_token_is_none(server: ServerProcess, given: str) -> None:
    assert (await answer(server, given))[0] == UNAUTHENTICATED


async def test_a_token_of_another_size_is_not_even_read(server: ServerProcess) -> None:
    code, reason = await answer(server, "x" * 16_385)
    assert code == BAD_HELLO
    assert "$.token" in reason


@pytest.mark.parametrize("payload", [b"[" * 9000, b'{"a":' * 2000, b"[]", b"null", b"\xff", b""])
async def test_a_signed_payload_that_is_no_object_is_nobody(
    server: ServerProcess, payload: bytes
) -> None:
    given = sign_by_hand({"alg": "HS256"}, payload, KEY)
    assert (await answer(server, given))[0] == UNAUTHENTICATED


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"exp": None}, UNAUTHENTICATED),
        ({"exp": "tomorrow"}, UNAUTHENTICATED),
        ({"exp": "4000000000"}, UNAUTHENTICATED),
        ({"exp": 4_000_000_000_000}, UNAUTHENTICATED),
        ({"exp": [4_000_000_000]}, UNAUTHENTICATED),
        ({"exp": 1}, EXPIRED),
        ({"exp": int(time.time()) - 10}, EXPIRED),
        ({"nbf": 4_000_000_000}, UNAUTHENTICATED),
        ({"iat": 4_000_000_000}, UNAUTHENTICATED),
        ({"sub": None}, UNAUTHENTICATED),
        ({"sub": ""}, UNAUTHENTICATED),
        ({"sub": 7}, UNAUTHENTICATED),
        ({"sub": ["alice"]}, UNAUTHENTICATED),
        ({"sub": {"$ne": ""}}, UNAUTHENTICATED),
        ({"sub": "x" * 4096}, UNAUTHENTICATED),
        ({"aud": "another service"}, UNAUTHENTICATED),
        ({"scope": 7}, UNAUTHENTICATED),
    ],
    ids=str,
)
async def test_claims_that_are_missing_wrong_or_not_now_are_refused(
    server: ServerProcess, changes: dict[str, Any], code: int
) -> None:
    assert (await answer(server, forged({"alg": "HS256"}, **changes)))[0] == code


async def test_of_a_claim_given_twice_the_last_one_counts(server: ServerProcess) -> None:
    """RFC 7519 section 4 allows that or a refusal: never one here and the other there."""
    payload = b'{"sub":"mallory","exp":4000000000,"sub":"alice"}'
    assert await answer(server, sign_by_hand({"alg": "HS256"}, payload, KEY)) == (0, "alice")


async def test_subjects_that_only_look_alike_are_different_people(server: ServerProcess) -> None:
    """Composed, decomposed, upper case, full width: compared as they are, so nobody becomes two."""
    names = ["andré", "andre\u0301", "André", "\uff41ndré"]
    async with raw(server.url) as client:
        await client.send({"type": "hello", "token": forged({"alg": "HS256"}, sub=names[0])})
        session = (await client.next("welcome"))["session"]
    for name in names[1:]:
        async with raw(server.url) as client:
            hello = {"type": "hello", "token": forged({"alg": "HS256"}, sub=name)}
            await client.send({**hello, "session": session})
            assert not (await client.next("welcome"))["resumed"]


# Public keys, audience, issuer


@pytest.fixture(scope="module")
def signer() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
async def strict(own_server: ServerProcess, signer: rsa.RSAPrivateKey) -> ServerProcess:
    """A server that trusts one RSA key, one issuer, and is one audience."""
    file = own_server.directory / "public.pem"
    file.write_bytes(public_pem(signer))
    own_server.settings |= {
        "jwt_secret": "",
        "jwt_public_key": file,
        "jwt_audience": "queue",
        "jwt_issuer": "https://login.example",
    }
    await own_server.astart()
    return own_server


async def test_keys_audiences_and_issuers_of_others_do_not_count(
    strict: ServerProcess, signer: rsa.RSAPrivateKey
) -> None:
    good = claims(aud="queue", iss="https://login.example")
    others = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def signed(key: Any = signer, algorithm: str = "RS256", **changes: Any) -> str:
        payload = {name: value for name, value in (good | changes).items() if value is not None}
        return jwt.encode(payload, key, algorithm=algorithm)

    text = json.dumps(good).encode()
    pem = public_pem(signer)
    assert await answer(strict, signed()) == (0, "alice")
    for bad in (
        sign_by_hand({"alg": "HS256"}, text, pem),  # algorithm confusion, with all forms of it
        sign_by_hand({"alg": "HS256"}, text, pem.strip()),
        sign_by_hand({"alg": "RS256"}, text, pem),
        sign_by_hand({"alg": "HS256"}, text, b""),
        signed(others),
        signed(algorithm="RS512"),
        signed(algorithm="PS256"),
        signed(aud="another service"),
        signed(aud=None),
        signed(aud=["another service"]),
        signed(aud="QUEUE"),
        signed(iss="https://login.example.evil"),
        signed(iss="https://login.example/"),
        signed(iss=None),
    ):
        assert (await answer(strict, bad))[0] == UNAUTHENTICATED, bad


def test_a_private_key_in_place_of_the_public_one_stops_the_start(
    own_server: ServerProcess, signer: rsa.RSAPrivateKey
) -> None:
    file = Path(own_server.directory) / "private.pem"
    file.write_bytes(private_pem(signer))
    own_server.settings |= {"jwt_secret": "", "jwt_public_key": file}
    own_server.spawn()
    assert own_server.process is not None
    assert own_server.process.wait(30) == 2
    assert "holds a private key" in own_server.log.read_text()
