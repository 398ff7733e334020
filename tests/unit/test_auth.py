"""Tokens: which are believed, and what the refusal of the others says."""

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from server.auth import EXP_MAX, Identity, Unauthenticated, Verifier
from server.settings import Settings, SettingsError

SECRET = "s3cret-" * 8
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
WEAK_RSA = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505
SIGNERS: list[tuple[Any, str]] = [(RSA, "RS256"), (EC, "ES256"), (ED, "EdDSA")]


def public_pem(private_key: Any) -> bytes:
    return private_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def private_pem(private_key: Any) -> bytes:
    return private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def pem_file(directory: Path, content: bytes) -> str:
    path = directory / "key.pem"
    path.write_bytes(content)
    return str(path)


def claims(**changes: Any) -> dict[str, Any]:
    """Return good claims with changes; a claim changed to None is left out."""
    good: dict[str, Any] = {"sub": "alice", "exp": int(time.time()) + 3600}
    return {name: value for name, value in (good | changes).items() if value is not None}


def sign(
    payload: dict[str, Any] | None = None,
    key: Any = SECRET,
    algorithm: str = "HS256",
    **headers: Any,
) -> str:
    return jwt.encode(payload or claims(), key, algorithm=algorithm, headers=headers)


def sign_by_hand(header: dict[str, Any], payload: bytes, secret: bytes) -> str:
    """Return an HS256 token that PyJWT would not make."""
    parts = [json.dumps(header).encode(), payload]
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    signature = hmac.digest(secret, signed, hashlib.sha256)
    return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def verifier(**settings: Any) -> Verifier:
    return Verifier.from_settings(Settings(**({"jwt_secret": SECRET} | settings)))


async def refusal(token: str, **settings: Any) -> Unauthenticated:
    """Return the Unauthenticated that verifying must raise."""
    with pytest.raises(Unauthenticated) as caught:
        await verifier(**settings).verify(token)
    # As gateway.py makes it: longer would be cut (RFC 6455 section 5.5).
    assert len(f"unauthenticated: {caught.value}") <= 123
    return caught.value


# Good tokens


async def test_a_good_token_tells_who_it_is_for_and_until_when():
    exp = int(time.time()) + 100
    identity = await verifier().verify(sign(claims(exp=exp)))
    assert identity == Identity("alice", frozenset(), float(exp))


@pytest.mark.parametrize(("private_key", "algorithm"), SIGNERS)
async def test_a_token_signed_for_a_pem_file_is_accepted(
    tmp_path: Path, private_key: Any, algorithm: str
):
    file = pem_file(tmp_path, public_pem(private_key))
    checking = verifier(jwt_secret=None, jwt_public_key=(file,))
    assert (await checking.verify(sign(key=private_key, algorithm=algorithm))).subject == "alice"


@pytest.mark.parametrize(
    ("private_key", "algorithm"), [(SECRET, "HS256"), (RSA, "RS256"), (ED, "EdDSA")]
)
async def test_with_several_keys_a_token_of_any_is_accepted(
    tmp_path: Path, private_key: Any, algorithm: str
):
    files = []
    for number, key in enumerate((RSA, ED)):
        files.append(tmp_path / f"{number}.pem")
        files[-1].write_bytes(public_pem(key))
    checking = verifier(jwt_public_key=tuple(map(str, files)))
    assert (await checking.verify(sign(key=private_key, algorithm=algorithm))).subject == "alice"


async def test_two_keys_of_one_algorithm_may_be_in_use_at_once(tmp_path: Path):
    other = ed25519.Ed25519PrivateKey.generate()
    files = []
    for number, key in enumerate((other, ED)):
        files.append(tmp_path / f"{number}.pem")
        files[-1].write_bytes(public_pem(key))
    checking = verifier(jwt_public_key=tuple(map(str, files)))
    assert (await checking.verify(sign(key=ED, algorithm="EdDSA"))).subject == "alice"


def test_verifying_with_keys_at_hand_waits_for_nothing():
    with pytest.raises(StopIteration):
        verifier().verify(sign()).send(None)  # without an event loop


async def test_a_key_id_does_not_matter_to_keys_that_have_none():
    assert await verifier().verify(sign(kid="whatever"))


# Signatures


async def test_a_wrong_secret_is_refused():
    assert "signed with no key" in str(await refusal(sign(key="another-" * 8)))


async def test_a_wrong_key_of_the_right_type_is_refused(tmp_path: Path):
    file = pem_file(tmp_path, public_pem(ED))
    forged = sign(key=ed25519.Ed25519PrivateKey.generate(), algorithm="EdDSA")
    assert "signed with no key" in str(await refusal(forged, jwt_public_key=(file,)))


async def test_a_changed_payload_is_refused():
    header, _, signature = sign().split(".")
    payload = sign(claims(sub="mallory"), key="another-" * 8).split(".")[1]
    assert not (await refusal(f"{header}.{payload}.{signature}")).expired


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", ""])
async def test_an_unsigned_token_is_refused(algorithm: str):
    token = sign_by_hand({"alg": algorithm}, json.dumps(claims()).encode(), b"")
    header, payload, _ = token.split(".")
    await refusal(f"{header}.{payload}.")


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
async def test_another_algorithm_with_the_right_secret_is_refused(algorithm: str):
    await refusal(sign(key=SECRET * 2, algorithm=algorithm), jwt_secret=SECRET * 2)


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256"])
async def test_another_algorithm_with_the_right_key_is_refused(tmp_path: Path, algorithm: str):
    file = pem_file(tmp_path, public_pem(RSA))
    await refusal(sign(key=RSA, algorithm=algorithm), jwt_public_key=(file,))


@pytest.mark.parametrize("secret", [SECRET, None])
async def test_a_public_key_is_no_secret(tmp_path: Path, secret: str | None):
    pem = public_pem(RSA)
    forged = sign_by_hand({"alg": "HS256"}, json.dumps(claims()).encode(), pem)
    await refusal(forged, jwt_secret=secret, jwt_public_key=(pem_file(tmp_path, pem),))


@pytest.mark.parametrize("kid", ["../../dev/null", "' OR 1=1 --", "key.pem", "http://evil"])
async def test_a_key_id_reads_nothing(kid: str):
    empty = sign_by_hand({"alg": "HS256", "kid": kid}, json.dumps(claims()).encode(), b"")
    await refusal(empty)


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c"])
async def test_a_key_that_the_token_brings_is_ignored(tmp_path: Path, name: str):
    mine = ed25519.Ed25519PrivateKey.generate()
    value = jwt.algorithms.OKPAlgorithm.to_jwk(mine.public_key(), as_dict=True)
    forged = sign(key=mine, algorithm="EdDSA", **{name: value})
    await refusal(forged, jwt_public_key=(pem_file(tmp_path, public_pem(ED)),))


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"alg": None},
        {"alg": ["HS256"]},
        {"alg": {"HS256": 1}},
        {"alg": 256},
        {"alg": "HS256", "kid": 7},
        {"alg": "HS256", "crit": []},
        {"alg": "HS256", "crit": ["exp"], "exp": 1},
        {"alg": "HS256", "crit": ["b64"], "b64": True},
        {"alg": "HS256", "crit": ["b64"], "b64": False},
        {"alg": "HS256", "b64": False},
    ],
)
async def test_an_unusable_header_is_refused(header: dict[str, Any]):
    await refusal(sign_by_hand(header, json.dumps(claims()).encode(), SECRET.encode()))


# Form


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "...",
        "garbage",
        "a.b.c",
        "é.é.é",
        "\udc80.a.b",
        "e30.e30.",
        "\x00",
        "W10.e30.",
    ],
)
async def test_text_that_is_no_jwt_is_refused(text: str):
    await refusal(text)


async def test_a_token_of_the_largest_size_is_accepted():
    header, payload, _ = sign(claims(pad="")).split(".")
    room = 16_384 - len(header) - 2 - 43
    pad = "x" * (room * 3 // 4 - len(base64.urlsafe_b64decode(payload + "==")))
    assert await verifier().verify(sign(claims(pad=pad)))


async def test_a_token_that_is_too_large_is_refused():
    assert "longer than 16384 bytes" in str(await refusal(sign(claims(pad="x" * 16_384))))


@pytest.mark.parametrize("payload", [b"", b"[]", b"null", b"{", b'"text"', b"\xff", b"[" * 9_000])
async def test_a_payload_that_is_no_object_is_refused(payload: bytes):
    await refusal(sign_by_hand({"alg": "HS256"}, payload, SECRET.encode()))


async def test_a_refusal_never_quotes_the_token():
    token = sign(claims(sub="alice", aud="somebody"))
    text = str(await refusal(token))
    assert not any(part in text for part in [*token.split("."), "alice", "somebody"])


# Times


async def test_an_expired_token_is_refused_as_expired():
    assert (await refusal(sign(claims(exp=int(time.time()) - 3600)))).expired


async def test_an_expired_token_with_a_wrong_signature_is_not_called_expired():
    forged = sign(claims(exp=int(time.time()) - 3600), key="another-" * 8)
    assert not (await refusal(forged)).expired


async def test_expiry_within_the_leeway_is_tolerated():
    assert await verifier(jwt_leeway=300).verify(sign(claims(exp=int(time.time()) - 30)))


async def test_a_token_without_expiry_is_refused():
    assert "no claim `exp`" in str(await refusal(sign(claims(exp=None))))


@pytest.mark.parametrize(
    "exp",
    [
        *("NaN", "Infinity", "-Infinity", '"9999999999"', "true", "null", "[]", "{}"),
        *(str(EXP_MAX), "1e18", "1e308", "1e400"),
        pytest.param("1" + "0" * 400, id="more than a float holds"),
        pytest.param("1" + "0" * 5000, id="more digits than int() takes"),
    ],
)
async def test_an_expiry_that_is_no_sensible_number_is_refused(exp: str):
    payload = f'{{"sub": "alice", "exp": {exp}}}'.encode()
    await refusal(sign_by_hand({"alg": "HS256"}, payload, SECRET.encode()))


@pytest.mark.parametrize("exp", [EXP_MAX - 1, 32_503_680_000.5])
async def test_an_expiry_in_the_far_future_is_accepted(exp: float):
    assert (await verifier().verify(sign(claims(exp=exp)))).expires_at == exp


@pytest.mark.parametrize("claim", ["nbf", "iat"])
async def test_a_token_from_the_future_is_refused(claim: str):
    token = sign(claims(**{claim: int(time.time()) + 1800}))
    assert "not valid yet" in str(await refusal(token))


async def test_a_token_that_begins_within_the_leeway_is_accepted():
    token = sign(claims(nbf=int(time.time()) + 30))
    assert await verifier(jwt_leeway=300).verify(token)


@pytest.mark.parametrize("claim", ["nbf", "iat", "jti"])
async def test_a_claim_of_the_wrong_type_is_refused(claim: str):
    await refusal(sign(claims(**{claim: ["x"]})))


# Subject, audience, issuer


async def test_a_token_without_subject_is_refused():
    assert "no claim `sub`" in str(await refusal(sign(claims(sub=None))))


@pytest.mark.parametrize("subject", ["", "x" * 257, 7, ["alice"], "a\nb", "\ud800", "a\x1b[2J"])
async def test_a_subject_that_names_nobody_is_refused(subject: object):
    payload = json.dumps(claims(sub=subject)).encode()
    token = sign_by_hand({"alg": "HS256"}, payload, SECRET.encode())
    assert "`sub`" in str(await refusal(token))


@pytest.mark.parametrize("subject", ["x" * 256, "Zoë Müller", "auth0|5f7c", "日本"])
async def test_a_subject_may_be_any_printable_text(subject: str):
    assert (await verifier().verify(sign(claims(sub=subject)))).subject == subject


@pytest.mark.parametrize("audience", ["queue", ["other", "queue"]])
async def test_the_configured_audience_is_accepted(audience: object):
    assert await verifier(jwt_audience="queue").verify(sign(claims(aud=audience)))


@pytest.mark.parametrize("audience", ["other", ["other"], ["queue", 7], "", [], {"queue": 1}])
async def test_another_audience_is_refused(audience: object):
    assert "aud" in str(await refusal(sign(claims(aud=audience)), jwt_audience="queue"))


async def test_a_token_without_the_configured_audience_is_refused():
    assert "no claim `aud`" in str(await refusal(sign(), jwt_audience="queue"))


async def test_a_token_for_an_audience_is_refused_where_none_is_configured():
    text = str(await refusal(sign(claims(aud="queue"))))
    assert "QUEUESYSTEM_JWT_AUDIENCE" in text


async def test_the_configured_issuer_is_accepted():
    assert await verifier(jwt_issuer="us").verify(sign(claims(iss="us")))


async def test_another_issuer_is_refused():
    assert "another issuer" in str(await refusal(sign(claims(iss="them")), jwt_issuer="us"))


async def test_a_token_without_the_configured_issuer_is_refused():
    assert "no claim `iss`" in str(await refusal(sign(), jwt_issuer="us"))


# Scopes


@pytest.mark.parametrize(
    ("scope", "scopes"),
    [
        ("", set()),
        ("read", {"read"}),
        ("read write", {"read", "write"}),
        ("  read   write ", {"read", "write"}),
        ("read read", {"read"}),
        (["read", "write"], {"read", "write"}),
        ([], set()),
    ],
)
async def test_scopes_are_words_or_a_list(scope: object, scopes: set[str]):
    assert (await verifier().verify(sign(claims(scope=scope)))).scopes == scopes


@pytest.mark.parametrize("scope", [7, True, {"read": 1}, ["a b"], [""], [7], 'a"b', "é", "a\tb"])
async def test_a_scope_of_another_form_is_refused(scope: object):
    assert "`scope`" in str(await refusal(sign(claims(scope=scope))))


async def test_a_scope_of_null_is_refused():
    payload = json.dumps(claims() | {"scope": None}).encode()
    await refusal(sign_by_hand({"alg": "HS256"}, payload, SECRET.encode()))


# Settings


def settings_refusal(**settings: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        Verifier.from_settings(Settings(**settings))
    return str(caught.value)


def test_without_any_key_there_is_no_verifier():
    assert "QUEUESYSTEM_JWT_SECRET" in settings_refusal()


@pytest.mark.parametrize("secret", ["x" * 31, "\udc80" * 32])
def test_a_secret_that_is_too_short_or_no_text_stops_the_start(secret: str):
    assert "QUEUESYSTEM_JWT_SECRET" in settings_refusal(jwt_secret=secret)


def test_a_key_in_place_of_the_secret_stops_the_start():
    text = settings_refusal(jwt_secret=public_pem(RSA).decode())
    assert "QUEUESYSTEM_JWT_PUBLIC_KEY" in text


def test_a_pem_file_that_cannot_be_read_stops_the_start(tmp_path: Path):
    missing = str(tmp_path / "missing.pem")
    text = settings_refusal(jwt_public_key=(missing,))
    assert missing in text and "QUEUESYSTEM_JWT_PUBLIC_KEY" in text  # noqa: PT018 - one message


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "exactly one public key"),
        (b"garbage", "exactly one public key"),
        (b"x" * 100_000, "exactly one public key"),
        (public_pem(RSA) + public_pem(EC), "exactly one public key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "no public key"),
        (private_pem(EC), "private key"),
        (public_pem(ec.generate_private_key(ec.SECP384R1())), "P-256"),
        (public_pem(ed448.Ed448PrivateKey.generate()), "Ed25519"),
        (public_pem(WEAK_RSA), "2048"),
    ],
)
def test_a_pem_file_without_a_usable_public_key_stops_the_start(
    tmp_path: Path, content: bytes, problem: str
):
    file = pem_file(tmp_path, content)
    text = settings_refusal(jwt_public_key=(file,))
    assert file in text and problem in text  # noqa: PT018 - one message


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example/jwks",
        "http://127.0.0.1.evil.example/jwks",
        "http://localhost.evil.example/jwks",
        "http://10.0.0.1/jwks",
        "ftp://localhost/jwks",
        "file:///etc/passwd",
        "data:application/json,{}",
        "https://",
        "https://user:password@issuer.example/jwks",
        "https://issuer.example:99999/jwks",
        "https://issuer.example/a b",
        "https://[",
        "issuer.example/jwks",
        "",
    ],
)
def test_a_jwks_url_that_cannot_be_trusted_stops_the_start(url: str):
    assert "QUEUESYSTEM_JWT_JWKS_URL" in settings_refusal(jwt_jwks_url=url)


@pytest.mark.parametrize(
    "url",
    [
        "https://issuer.example/.well-known/jwks.json?x=1",
        "http://localhost:8080/jwks",
        "http://127.0.0.1/jwks",
        "http://[::1]:8080/jwks",
    ],
)
def test_a_jwks_url_with_tls_or_to_this_machine_is_taken(url: str):
    assert Verifier.from_settings(Settings(jwt_jwks_url=url))
