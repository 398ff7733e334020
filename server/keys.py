"""Keys that check tokens. Each key is for exactly one algorithm, and the key alone decides which:

    the secret -> HS256     RSA -> RS256     EC on P-256 -> ES256     Ed25519 -> EdDSA

So a token cannot choose (RFC 8725 section 3.1): what it names only tells which keys to try. A
public key is never text here that could serve as a secret.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from msgspec import Struct

from server.settings import SettingsError

SECRET_BYTES_MIN: Final = 32
SECRET_CHARACTERS_MIN: Final = 10
"""With fewer different ones a secret was typed, not made; one of 32 random hex digits has 14."""
RSA_BITS_MIN: Final = 2048
"""RFC 7518 section 3.3."""
PEM_BYTES_MAX: Final = 64 * 1024

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

PUBLIC_ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")


class Key(Struct, frozen=True):
    """A key and the one algorithm it is used with; `kid` is what its key set calls it."""

    algorithm: str
    material: bytes | PublicKey
    kid: str | None = None


class KeySource(Protocol):
    """Where keys come from."""

    async def find(self, algorithm: object, kid: str | None) -> Sequence[Key]:
        """Return the keys that could have signed a token whose header has these two values.

        Raises KeysUnavailable when that cannot be told now.
        """
        ...


class FixedKeys:
    """Keys known from the start: the secret and those of PEM files. They have no `kid`."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._keys = tuple(keys)

    async def find(self, algorithm: object, kid: str | None) -> Sequence[Key]:
        """Return every key of that algorithm."""
        return [key for key in self._keys if key.algorithm == algorithm]


def secret_key(secret: str) -> Key:
    """Return the HS256 key of the configured secret, of at least 32 bytes (RFC 7518 section 3.2).

    Raises SettingsError, also for a PEM: who signs with a published key could be anybody.
    """
    try:
        data = secret.encode()
    except UnicodeEncodeError:  # bytes of the environment that are no UTF-8
        raise SettingsError("QUEUESYSTEM_JWT_SECRET must be UTF-8 text") from None
    if len(data) < SECRET_BYTES_MIN:
        raise SettingsError(f"QUEUESYSTEM_JWT_SECRET must have at least {SECRET_BYTES_MIN} bytes")
    try:
        return Key("HS256", jwt.get_algorithm_by_name("HS256").prepare_key(data))
    except jwt.InvalidKeyError:
        raise SettingsError(
            "QUEUESYSTEM_JWT_SECRET holds a key, not a secret: put a public key into a PEM file "
            "and its name into QUEUESYSTEM_JWT_PUBLIC_KEY"
        ) from None


def looks_guessable(secret: str) -> bool:
    """Tell whether a secret is long enough only because something in it is repeated."""
    repeats = secret in (secret + secret)[1:-1]
    return repeats or len(set(secret)) < SECRET_CHARACTERS_MIN


def pem_key(path: Path) -> Key:
    """Read the one public key of a PEM file. Raises SettingsError that names file and setting."""
    setting = f"QUEUESYSTEM_JWT_PUBLIC_KEY names {path}, but"
    try:
        with path.open("rb") as file:
            data = file.read(PEM_BYTES_MAX + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise SettingsError(f"{setting} that cannot be read: {error}") from error
    if b"PRIVATE KEY-----" in data:
        raise SettingsError(
            f"{setting} that holds a private key: keep it secret, and use the file made by "
            "openssl pkey -in PRIVATE.pem -pubout -out PUBLIC.pem"
        )
    if len(data) > PEM_BYTES_MAX or data.count(b"-----BEGIN") != 1:
        raise SettingsError(f"{setting} that does not hold exactly one public key in PEM form")
    try:
        loaded = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SettingsError(f"{setting} that holds no public key in PEM form") from error
    key = _public_key(loaded, None)
    if key is None:
        raise SettingsError(
            f"{setting} its key must be RSA of at least {RSA_BITS_MIN} bits (RS256), EC on P-256 "
            "(ES256) or Ed25519 (EdDSA)"
        )
    return key


def jwk_key(jwk: Mapping[str, Any]) -> Key | None:
    """Return the key of a JWK (RFC 7517), None for one that is not for us.

    That is: a secret, a private key, a key for encryption or another algorithm, a broken key.
    """
    if jwk.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    if jwk.get("use", "sig") != "sig" or "verify" not in jwk.get("key_ops", ["verify"]):
        return None
    kid = jwk.get("kid")
    if not (kid is None or isinstance(kid, str)):
        return None
    # Parsed under our names, not under the key's own `alg`, which could be anything.
    own = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}[jwk["kty"]]
    if jwk.get("alg", own) != own:
        return None
    return _public_key(jwt.PyJWK(dict(jwk), own).key, kid)


def _public_key(key: object, kid: str | None) -> Key | None:
    match key:
        case RSAPublicKey() if key.key_size >= RSA_BITS_MIN:
            return Key("RS256", key, kid)
        case EllipticCurvePublicKey() if isinstance(key.curve, SECP256R1):
            return Key("ES256", key, kid)
        case Ed25519PublicKey():
            return Key("EdDSA", key, kid)
        case _:
            return None
