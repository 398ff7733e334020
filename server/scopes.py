"""Scopes: what a token allows, written as words separated by spaces (RFC 6749 section 3.3)."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

_SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")
"""scope-token of RFC 6749: visible ASCII without the double quote and backslash."""


def are_scopes(tokens: Iterable[object]) -> bool:
    """Tell whether each of these is text with the form of one scope."""
    return all(isinstance(one, str) and _SCOPE_TOKEN.fullmatch(one) for one in tokens)


@lru_cache(maxsize=1024)
def split_scopes(scope: str) -> frozenset[str]:
    """Return the scopes in a text that separates them by spaces."""
    return frozenset(scope.split())


def join_scopes(scopes: Iterable[str]) -> str:
    """Return the text of `scopes`, always the same for the same ones."""
    return " ".join(sorted(scopes))
