"""Users and their passwords: who may have a token from this server.

    login: throttle -> user or dummy -> Argon2id -> User, or an error

Errors of a login, neither of which tells whether the user exists:

    LoginRefused    wrong name or password
    TooManyLogins   not judged at all: too many wrong ones before (throttle.py), or too many at once
"""

import base64
import re
import secrets
import time
import unicodedata
from collections.abc import Callable
from typing import Any, Final

import structlog
from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError, VerifyMismatchError
from msgspec.structs import replace

from server.journal.log import JournalError
from server.journal.store import User, Users
from server.scopes import are_scopes
from server.threads import Threads
from server.throttle import Throttle, TooManyLogins

__all__ = ["Accounts", "LoginRefused", "TooManyLogins"]

NAME_CHARACTERS_MAX: Final = 128
PASSWORD_CHARACTERS_MIN: Final = 8
PASSWORD_CHARACTERS_MAX: Final = 1024
SCOPE_CHARACTERS_MAX: Final = 2048
"""A token with it must stay below the bound of the wire."""
HASHES_AT_ONCE: Final = 2
"""Each takes 64 MiB and several cores."""
HASHES_WAITING_MAX: Final = 32
HASH_SECONDS: Final = 0.1
"""About what one takes, to say when to come back."""

_log = structlog.get_logger(__name__)


class LoginRefused(Exception):
    """Wrong name or password."""

    def __init__(self) -> None:
        super().__init__("wrong name or password")


def password_hasher() -> PasswordHasher:
    """Return Argon2id as RFC 9106 section 4 recommends where 2 GiB per login are too many."""
    return PasswordHasher(
        time_cost=3, memory_cost=64 * 1024, parallelism=4, hash_len=32, salt_len=16
    )


class Accounts:
    """The users of one store."""

    def __init__(
        self,
        users: Users,
        *,
        hasher: PasswordHasher | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._users = users
        self._hasher = hasher or password_hasher()
        self._dummy = _dummy_hash(self._hasher)
        self._throttle = Throttle(clock)
        self._threads = Threads(HASHES_AT_ONCE, "argon2")
        self._hashes = 0

    async def add(self, name: str, password: str, scope: str, now: float) -> None:
        """Add the user, or give the one of that name a new password and scope, as of `now`.

        `scope` is space separated (RFC 6749 section 3.3). Raises ValueError for a name, password
        or scope out of bounds, and what the store raises.
        """
        scopes = scope.split()
        problem = _name_problem(name) or _password_problem(password) or _scope_problem(scopes)
        if problem is not None:
            raise ValueError(problem)
        password_hash = await self._in_thread(self._hasher.hash, _normalize(password))
        await self._users.put(User(name, password_hash, " ".join(scopes), now))

    async def login(self, name: str, password: str, address: str) -> User:
        """Return the user when the password is right; `address` is where the attempt came from.

        Raises LoginRefused, TooManyLogins, and what the store raises.
        """
        key = name[:NAME_CHARACTERS_MAX]
        self._throttle.take(key, address)
        try:
            # A name that cannot be one is not for the store, which may fail on it.
            user = None if _name_problem(name) else await self._users.get(name)
            stored = self._dummy if user is None else user.password_hash
            right = await self._in_thread(self._matches, stored, _normalize(password))
        except Exception:  # but not cancellation: hanging up must not make guessing free
            self._throttle.give_back(key, address)
            raise
        if user is None or not right:
            raise LoginRefused
        self._throttle.give_back(key, address)
        self._throttle.know(key, address)
        if self._hasher.check_needs_rehash(user.password_hash):
            await self._rehash(user, password)
        return user

    def _matches(self, password_hash: str, password: bytes) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except VerifyMismatchError:
            return False
        except (Argon2Error, InvalidHashError) as error:
            _log.error("password_hash_unusable", error=str(error))
            return False

    async def _rehash(self, user: User, password: str) -> None:
        """Store the hash anew with the parameters of today; if that fails, the next login will."""
        try:
            password_hash = await self._in_thread(self._hasher.hash, _normalize(password))
            # Removed or changed meanwhile: that must not be undone.
            if await self._users.get(user.name) == user:
                await self._users.put(replace(user, password_hash=password_hash))
        except (JournalError, TooManyLogins) as error:
            _log.warning("rehash_failed", error=str(error))

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if self._hashes >= HASHES_AT_ONCE + HASHES_WAITING_MAX:
            raise TooManyLogins(
                "too many logins at once: try again",
                HASH_SECONDS * HASHES_WAITING_MAX / HASHES_AT_ONCE,
            )
        self._hashes += 1
        try:
            return await self._threads.run(function, *arguments)
        finally:
            self._hashes -= 1


def _dummy_hash(hasher: PasswordHasher) -> str:
    """Return a hash no password has, which takes as long to refuse as a real one."""
    salt, digest = (
        base64.b64encode(secrets.token_bytes(length)).rstrip(b"=").decode()
        for length in (hasher.salt_len, hasher.hash_len)
    )
    return (
        f"$argon2id$v=19$m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
        f"${salt}${digest}"
    )


def _normalize(password: str) -> bytes:
    """Return the bytes to hash: keyboards differ in how they compose "é" (RFC 8265 section 4.2).

    Never fails: a login brings any text.
    """
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")


def _name_problem(name: str) -> str | None:
    if not 1 <= len(name) <= NAME_CHARACTERS_MAX or not name.isprintable():
        return f"a name must have 1 to {NAME_CHARACTERS_MAX} printable characters"
    if ":" in name:
        return "a name must not have a colon: HTTP Basic (RFC 7617) ends it there"
    if name != name.strip():
        return "a name must not begin or end with a space"
    return None


def _password_problem(password: str) -> str | None:
    if not PASSWORD_CHARACTERS_MIN <= len(password) <= PASSWORD_CHARACTERS_MAX:
        return (
            f"a password must have {PASSWORD_CHARACTERS_MIN} to {PASSWORD_CHARACTERS_MAX} "
            f"characters, this one has {len(password)}"
        )
    if re.search("[\x00-\x1f\x7f\ud800-\udfff]", password):
        return "a password must be text without control characters: HTTP Basic cannot send those"
    return None


def _scope_problem(scopes: list[str]) -> str | None:
    if not are_scopes(scopes):
        return (
            "a scope must be of visible ASCII characters without double quote and backslash "
            "(RFC 6749 section 3.3); spaces separate scopes"
        )
    if len(" ".join(scopes)) > SCOPE_CHARACTERS_MAX:
        return f"the scopes must have at most {SCOPE_CHARACTERS_MAX} characters together"
    return None
