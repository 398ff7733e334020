"""Tokens the server issues itself (HS256: `sub`, `iat`, `exp` and what was asked for).

What makes a token acceptable is the other half: server/auth.py.
"""

import math
from typing import Any

import jwt


def issue_token(
    secret: str,
    subject: str,
    *,
    ttl_seconds: float,
    scope: str | None,
    audience: str | None,
    issuer: str | None,
    now: float,
) -> str:
    """Sign a token for `subject` that is valid for `ttl_seconds` from `now` (Unix time).

    `scope` is space separated (RFC 6749 section 3.3); it, `audience` and `issuer` become claims
    only when given. `exp` is rounded up to a whole second, so that no token is born expired.
    """
    claims: dict[str, Any] = {
        "sub": subject,
        "iat": math.floor(now),
        "exp": math.ceil(now + ttl_seconds),
    }
    optional = {"aud": audience, "iss": issuer, "scope": scope}
    claims |= {name: value for name, value in optional.items() if value}
    return jwt.encode(claims, secret, algorithm="HS256")
