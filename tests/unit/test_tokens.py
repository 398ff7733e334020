"""Tokens the server issues: their claims, and what a scope may look like."""

from typing import Any

import jwt
import pytest

from server.scopes import are_scopes
from server.tokens import issue_token

SECRET = "s3cret-" * 8
NOW = 1_700_000_000.0


def issue(subject: str = "alice", **options: Any) -> str:
    defaults: dict[str, Any] = {
        "ttl_seconds": 60,
        "scope": None,
        "audience": None,
        "issuer": None,
        "now": NOW,
    }
    return issue_token(SECRET, subject, **(defaults | options))


def claims(token: str) -> dict[str, Any]:
    """Return the claims after checking the signature, whatever their times."""
    unchecked: Any = {"verify_exp": False, "verify_iat": False, "verify_aud": False}
    return jwt.decode(token, SECRET, algorithms=["HS256"], options=unchecked)


def test_a_token_has_subject_and_times_and_nothing_nobody_asked_for():
    assert claims(issue()) == {"sub": "alice", "iat": NOW, "exp": NOW + 60}


@pytest.mark.parametrize(
    ("option", "claim"), [("audience", "aud"), ("issuer", "iss"), ("scope", "scope")]
)
def test_what_is_given_becomes_a_claim(option: str, claim: str):
    assert claims(issue(**{option: "given"}))[claim] == "given"


def test_an_empty_scope_is_no_claim():
    assert "scope" not in claims(issue(scope=""))


def test_the_algorithm_is_hs256():
    assert jwt.get_unverified_header(issue())["alg"] == "HS256"


def test_a_life_of_a_fraction_of_a_second_is_rounded_up():
    assert claims(issue(ttl_seconds=0.2))["exp"] == NOW + 1


@pytest.mark.parametrize("scope", ["read", "read:all", "https://api.example/read", "!", "#[]~"])
def test_visible_ascii_is_a_scope(scope: str):
    assert are_scopes([scope])


@pytest.mark.parametrize("scope", ["", "a b", 'a"b', "a\\b", "é", "a\n", "\x7f", 1, None, ["a"]])
def test_anything_else_is_no_scope(scope: object):
    assert not are_scopes(["read", scope])
