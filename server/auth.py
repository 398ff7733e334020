"""Who a token (JWT) is for. It is believed only when all of this holds (RFC 8725):

    at most 16 KiB, without critical extensions, signed with a key and algorithm we chose (keys.py)
    `exp` not over, `nbf` and `iat` not ahead, each give or take the leeway
    `aud` and `iss` the configured ones; an `aud` is refused when none is configured, since the
        token was made for somebody else (RFC 7519 section 4.1.3)
    `sub` names somebody; `scope`, if there is one, is well-formed

Errors, whose texts never quote the token:

    Unauthenticated   the token is no good; `expired` when a fresh one will do
    KeysUnavailable   it cannot be told now: the same token may be taken later
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, cast

import jwt
from jwt.exceptions import InvalidSubjectError
from msgspec import Struct

from server.jwks import KeySet, KeysUnavailable
from server.keys import FixedKeys, Key, KeySource, pem_key, secret_key
from server.scopes import are_scopes
from server.settings import Settings, SettingsError

__all__ = [
    "REFRESH_GRACE_SECONDS",
    "AuthFailure",
    "Identity",
    "KeysUnavailable",
    "Unauthenticated",
    "Verifier",
]

REFRESH_GRACE_SECONDS: Final = 25.0
"""How long a connection outlives its token, for a refresh that is on its way."""
TOKEN_BYTES_MAX: Final = 16_384
"""The bound of `token` on the wire."""
SUBJECT_CHARACTERS_MAX: Final = 256
EXP_MAX: Final = 253_402_300_800
"""The year 10000: a time beyond is no time, but most likely one in milliseconds."""

_BAD_SUBJECT: Final = (
    f"`sub` of the token must be 1 to {SUBJECT_CHARACTERS_MAX} printable characters"
)


AuthFailure = Literal[
    "expired", "invalid", "keys_unavailable", "missing", "subject", "origin", "login",
    "login_throttled",
]  # fmt: skip
"""Why somebody was not let in: of tokens, the first four; `subject` is a refresh for somebody
else."""


class Identity(Struct, frozen=True):
    """Who a token is for, what it allows, and until when (Unix time in seconds)."""

    subject: str
    scopes: frozenset[str]
    expires_at: float


class Unauthenticated(Exception):
    """The token is no good; the text says why. `expired`: it was good, a fresh one will do."""

    def __init__(self, message: str, *, expired: bool = False) -> None:
        super().__init__(message)
        self.expired = expired


class Verifier:
    """Checks tokens against the keys of all `sources`, in their order.

    `failures` counts what was refused: tokens here, the rest by who asked for it.
    """

    def __init__(
        self,
        sources: Sequence[KeySource],
        *,
        audience: str | None,
        issuer: str | None,
        leeway_seconds: float,
    ) -> None:
        self.failures: Counter[AuthFailure] = Counter()
        self._sources = tuple(sources)
        self._audience = audience
        self._issuer = issuer
        self._leeway_seconds = leeway_seconds

    @classmethod
    def from_settings(cls, settings: Settings) -> "Verifier":
        """Take a token signed with any configured key: secret, PEM files, JWKS.

        Raises SettingsError for a key that cannot be used, and when there is none at all.
        """
        fixed = [pem_key(Path(name)) for name in settings.jwt_public_key]
        if settings.jwt_secret is not None:
            fixed.append(secret_key(settings.jwt_secret))
        # The key set comes last: it may have to be fetched.
        sources: list[KeySource] = [FixedKeys(fixed)] if fixed else []
        if settings.jwt_jwks_url is not None:
            sources.append(KeySet(settings.jwt_jwks_url))
        if not sources:
            raise SettingsError(
                "nobody could authenticate: set QUEUESYSTEM_JWT_SECRET, "
                "QUEUESYSTEM_JWT_PUBLIC_KEY or QUEUESYSTEM_JWT_JWKS_URL"
            )
        return cls(
            sources,
            audience=settings.jwt_audience,
            issuer=settings.jwt_issuer,
            leeway_seconds=settings.jwt_leeway,
        )

    async def verify(self, token: str) -> Identity:
        """Return whom the token is for; waits only where a key set must be fetched.

        Raises Unauthenticated and KeysUnavailable.
        """
        try:
            return await self._verify(token)
        except Unauthenticated as error:
            self.failures["expired" if error.expired else "invalid"] += 1
            raise
        except KeysUnavailable:
            self.failures["keys_unavailable"] += 1
            raise

    async def _verify(self, token: str) -> Identity:
        algorithm, kid = _read_header(token)
        for source in self._sources:
            for key in await source.find(algorithm, kid):
                claims = self._claims(token, key)
                if claims is not None:
                    return _identity(claims)
        raise Unauthenticated(
            "the token is signed with no key and algorithm accepted here: "
            "get one from the issuer this server trusts"
        )

    def _claims(self, token: str, key: Key) -> dict[str, Any] | None:
        """Return the claims when this key signed the token, None when it did not."""
        try:
            return jwt.decode(
                token,
                key.material,
                algorithms=[key.algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway_seconds,
                options={
                    "require": ["exp", "sub"],  # checked only if present otherwise
                    "verify_signature": True,
                    "verify_exp": True,
                    "verify_nbf": True,
                    "verify_iat": True,
                    "verify_aud": True,
                    "verify_iss": True,
                    "verify_sub": True,
                },
            )
        except jwt.InvalidSignatureError:
            return None
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("the token has expired: get a fresh one", expired=True) from None
        except jwt.InvalidTokenError as error:
            raise Unauthenticated(self._problem(error)) from None

    def _problem(self, error: jwt.InvalidTokenError) -> str:
        match error:
            case jwt.MissingRequiredClaimError():
                return f"the token has no claim `{error.claim}`"  # one of those we require
            case jwt.ImmatureSignatureError():
                return "the token is not valid yet (`nbf`, `iat`): compare the clocks"
            case jwt.InvalidAudienceError() if self._audience is None:
                return (
                    "the token has an audience (`aud`) and this server none: "
                    "set QUEUESYSTEM_JWT_AUDIENCE"
                )
            case jwt.InvalidAudienceError():
                return "the token is for another audience (`aud`)"
            case jwt.InvalidIssuerError():
                return "the token is from another issuer (`iss`)"
            case InvalidSubjectError():
                return _BAD_SUBJECT
            case _:
                return "the token is malformed: a claim has the wrong type"


def _read_header(token: str) -> tuple[object, str | None]:
    """Return `alg` and `kid`: not believed, only used to find the keys to try."""
    if len(token) > TOKEN_BYTES_MAX:
        raise Unauthenticated(f"the token is longer than {TOKEN_BYTES_MAX} bytes")
    try:
        if not token.isascii():
            raise jwt.DecodeError
        header = jwt.get_unverified_header(token)
    except jwt.InvalidTokenError:
        raise Unauthenticated(
            "the token is no JWT that can be read here: send it as it was issued"
        ) from None
    if "crit" in header:
        raise Unauthenticated("the token needs an extension (`crit`) that is not supported")
    return header.get("alg"), header.get("kid")


def _identity(claims: dict[str, Any]) -> Identity:
    subject = claims["sub"]
    # Printable: it goes into logs; and lone surrogates could be written nowhere.
    if not 1 <= len(subject) <= SUBJECT_CHARACTERS_MAX or not subject.isprintable():
        raise Unauthenticated(_BAD_SUBJECT)
    exp = claims["exp"]
    # PyJWT also takes numbers in text.
    if not isinstance(exp, int | float) or exp >= EXP_MAX:
        raise Unauthenticated("`exp` of the token must be a time in seconds since 1970")
    return Identity(subject, _scopes(claims), float(exp))


def _scopes(claims: dict[str, Any]) -> frozenset[str]:
    """Return the scopes: space separated text (RFC 6749 section 3.3) or a list of texts."""
    scope = claims.get("scope", "")
    tokens = [one for one in scope.split(" ") if one] if isinstance(scope, str) else scope
    if not isinstance(tokens, list) or not are_scopes(cast("list[Any]", tokens)):
        raise Unauthenticated("`scope` of the token must be scopes separated by spaces, or a list")
    return frozenset(cast("list[str]", tokens))
