"""The key set of an identity provider (JWKS, RFC 7517): fetched, kept, refreshed when it must be.

    key known, set fresh              -> at once, from memory
    set older than FRESH_SECONDS      -> fetch first; use the old set while fetching fails
    set older than KEEP_SECONDS       -> KeysUnavailable until a fetch succeeds
    key unknown                       -> fetch; a set fetched since the token came has the last word

Whatever tokens come, one fetch runs at a time, and one begins per COOLDOWN_SECONDS; whoever needs
one meanwhile shares the running one, or gets KeysUnavailable and may come back.
"""

import asyncio
import ipaddress
import json
import time
from collections.abc import Callable, Sequence
from http.client import HTTPException, HTTPMessage
from typing import IO, Any, Final, cast
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

import jwt
import structlog

from server.keys import PUBLIC_ALGORITHMS, Key, jwk_key
from server.settings import SettingsError

FRESH_SECONDS: Final = 300.0
"""How long a key the provider has withdrawn may still be used."""
KEEP_SECONDS: Final = 6 * 3600.0
"""How long keys are used when the provider cannot be reached to ask whether they still hold."""
COOLDOWN_SECONDS: Final = 10.0
FETCH_SECONDS: Final = 5.0
KEY_SET_BYTES_MAX: Final = 256 * 1024
KEYS_MAX: Final = 64
"""Bounds the signatures tried for a token without `kid`."""

_log = structlog.get_logger(__name__)


class KeysUnavailable(Exception):
    """Whether a token is good cannot be told now; the same token may be taken later."""


class FetchError(Exception):
    """The key set could not be fetched, or is none."""


class KeySet:
    """The keys behind one JWKS URL. Raises SettingsError for a URL that cannot be trusted."""

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        _check_url(url)
        self._url = url
        self._clock = clock
        self._keys: tuple[Key, ...] = ()
        self._fetches = 0
        """Successful ones."""
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._failing = False
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, algorithm: object, kid: str | None) -> Sequence[Key]:
        """Return the keys for a token: the one called `kid`, or all when the token names none.

        Waits at most FETCH_SECONDS. Raises KeysUnavailable.
        """
        if algorithm not in PUBLIC_ALGORITHMS:
            return ()
        before = self._fetches
        age = self._age()
        if age >= KEEP_SECONDS:
            await self._refresh()
            if self._age() >= KEEP_SECONDS:
                raise KeysUnavailable("the keys that check tokens cannot be fetched: try later")
        elif age >= FRESH_SECONDS:
            # Only the first to notice an outage waits for it.
            await self._refresh(wait=not self._failing)
        found = self._known(algorithm, kid)
        if not found and self._fetches == before:
            await self._refresh()
            if self._fetches == before:
                raise KeysUnavailable(
                    "the key of this token is not known yet, and keys cannot be fetched: try later"
                )
            found = self._known(algorithm, kid)
        return found

    def _age(self) -> float:
        return self._clock() - self._fetched_at

    def _known(self, algorithm: object, kid: str | None) -> Sequence[Key]:
        return [key for key in self._keys if key.algorithm == algorithm and kid in (None, key.kid)]

    async def _refresh(self, *, wait: bool = True) -> None:
        """Begin a fetch, unless one runs or began a moment ago; wait for the one that runs."""
        now = self._clock()
        if self._fetching is None and now - self._tried_at >= COOLDOWN_SECONDS:
            self._tried_at = now
            self._fetching = asyncio.create_task(self._fetch())
        if self._fetching is not None and wait:
            # A waiter that is cancelled must not cancel what others wait for.
            await asyncio.wait([self._fetching], timeout=FETCH_SECONDS)

    async def _fetch(self) -> None:
        try:
            self._keys = await asyncio.to_thread(fetch_keys, self._url)
        except FetchError as error:
            self._failing = True
            _log.warning("jwks_fetch_failed", error=str(error), keys_kept=len(self._keys))
        else:
            self._failing = False
            self._fetches += 1
            self._fetched_at = self._clock()
        finally:
            self._fetching = None


def fetch_keys(url: str) -> tuple[Key, ...]:
    """Fetch the usable keys of a key set; blocks. Raises FetchError.

    Waits FETCH_SECONDS at most for each answer of the network, and as long for the whole body.
    """
    try:
        data = _read(url)
        document: Any = json.loads(data)
    except (OSError, HTTPException) as error:
        raise FetchError(f"no answer: {error}") from error
    except (ValueError, RecursionError) as error:
        raise FetchError("the answer is not JSON") from error
    entries: Any = cast("dict[str, Any]", document).get("keys") if _is_object(document) else None
    if not isinstance(entries, list):
        raise FetchError('the answer is no key set: it has no list "keys"')
    keys = [key for entry in cast("list[Any]", entries)[:KEYS_MAX] if (key := _key(entry))]
    if not keys:
        raise FetchError("the key set has no key for RS256, ES256 or EdDSA")
    return tuple(keys)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _key(entry: Any) -> Key | None:
    try:
        return jwk_key(entry) if _is_object(entry) else None
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
        return None  # RFC 7517 section 5: ignore the keys one does not understand


def _read(url: str) -> bytes:
    # A proxy is for the network, not for this machine.
    proxies = ProxyHandler({} if urlsplit(url).scheme == "http" else None)
    opener = build_opener(proxies, _NoRedirect())
    request = Request(url, headers={"Accept": "application/json"})  # noqa: S310 - see _check_url
    deadline = time.monotonic() + FETCH_SECONDS
    data = bytearray()
    with opener.open(request, timeout=FETCH_SECONDS) as response:
        while chunk := response.read1(64 * 1024):
            data += chunk
            if len(data) > KEY_SET_BYTES_MAX:
                raise HTTPException(f"the answer is larger than {KEY_SET_BYTES_MAX} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError("the answer takes too long")
    return bytes(data)


class _NoRedirect(HTTPRedirectHandler):
    """Keys come from the place that was configured and no other: a redirect is an error."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        return None


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError when it is none
        trusted = parts.scheme == "https" or (
            parts.scheme == "http" and _is_loopback(parts.hostname)
        )
        usable = trusted and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        usable = False
    if not usable or not url.isascii() or not url.isprintable() or " " in url:
        raise SettingsError(
            "QUEUESYSTEM_JWT_JWKS_URL must be an https URL without user and password "
            "(http only to this machine: localhost, 127.0.0.1, [::1]), since whoever can change "
            "the answer can sign in as anybody"
        )


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
