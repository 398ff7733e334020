"""Which web pages may open a connection (RFC 6455 section 10.2: cross-site WebSocket hijacking).

    no Origin header                 allowed: a program, which could send any Origin it likes
    the page came from this server   allowed: Origin and Host name the same host and port
    listed, or "*" is                allowed
    anything else, also "null"       refused

Origins are compared as scheme, host and port (RFC 6454 section 5).
"""

from collections.abc import Sequence
from typing import Final
from urllib.parse import SplitResult, urlsplit

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

_Origin = tuple[str, str, int | None]


class Origins:
    """The origins allowed beside the server's own."""

    def __init__(self, allowed: Sequence[str]) -> None:
        """Take origins as browsers send them ("https://app.example"), "null", or "*" for all.

        Raises ValueError, naming the setting, for an entry that is no origin.
        """
        self._any = "*" in allowed
        self._null = "null" in allowed
        self._allowed = frozenset(
            _configured(entry) for entry in allowed if entry not in ("*", "null")
        )

    def allows(self, origin: str | None, host: str | None) -> bool:
        """Tell whether a handshake with these Origin and Host headers may go on."""
        if origin is None or self._any:
            return True
        if origin == "null":
            return self._null
        parsed = _parse(origin)
        return parsed is not None and (parsed in self._allowed or _is_own(parsed, host))


def _is_own(origin: _Origin, host: str | None) -> bool:
    scheme, name, port = origin
    # By the origin's scheme: behind a proxy that ends TLS we do not see our own.
    return (
        scheme in _DEFAULT_PORTS
        and host is not None
        and _parse(f"{scheme}://{host}") == (scheme, name, port)
    )


def _configured(entry: str) -> _Origin:
    origin = _parse(entry)
    if origin is None:
        raise ValueError(
            f'QUEUESYSTEM_ORIGINS has "{entry}", which is no origin: write SCHEME://HOST[:PORT] '
            "as in https://app.example, without a path or a slash at the end"
        )
    return origin


def _parse(text: str) -> _Origin | None:
    """Return the parts of a serialized origin (RFC 6454 section 6.2), None for other text."""
    if not text.isascii() or not text.isprintable() or set(text) & set(' \\@?#*,"<>%'):
        return None
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        return None
    if not _has_origin_only(url) or not url.hostname:
        return None
    return url.scheme, url.hostname, _DEFAULT_PORTS.get(url.scheme) if port is None else port


def _has_origin_only(url: SplitResult) -> bool:
    return bool(url.scheme and url.netloc) and not url.path and not url.netloc.endswith(":")
