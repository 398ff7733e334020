"""Opens the store that a URL names. Only the chosen store's libraries are imported."""

from pathlib import Path
from typing import Final

from server.journal.store import Store

SUPPORTED: Final = "sqlite:///PATH or mongodb://HOST[:PORT]/DATABASE (mongodb+srv:// too)"
HISTORY_TTL_SECONDS: Final = 604_800.0


async def open_store(
    url: str,
    *,
    log: bool = True,
    make: bool = True,
    history_ttl_seconds: float = HISTORY_TTL_SECONDS,
) -> Store:
    """Open the store at `url`; without `log`, all but the writing of logs.

    A file that is missing is made, unless `make` is False: then it is an error.

    `sqlite:///journal.db` is a relative path, `sqlite:////var/lib/journal.db` an absolute one.
    A store opened without its log excludes nobody and is excluded by nobody. Finished requests
    leave the history `history_ttl_seconds` after they finished where the store does that itself;
    elsewhere History.expire does. Raises ValueError for a URL that names no store, and the errors
    of log.py for a store that cannot be opened.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme == "sqlite":
        from server.journal.sqlite import open_sqlite  # noqa: PLC0415 - see the first line

        return await open_sqlite(_sqlite_path(url, rest), log=log, make=make)
    if separator and scheme in {"mongodb", "mongodb+srv"}:
        from server.journal.mongodb import open_mongodb  # noqa: PLC0415 - see the first line

        return await open_mongodb(url, log=log, history_ttl_seconds=history_ttl_seconds)
    # Not the whole URL: it may hold a password.
    raise ValueError(f"cannot open a {scheme!r} journal: supported are {SUPPORTED}")


def _sqlite_path(url: str, rest: str) -> Path:
    path = rest.removeprefix("/")
    if path == rest or path in {"", ":memory:"} or path.endswith("/"):
        raise ValueError(f"{url} names no file: write sqlite:///relative.db or sqlite:////abs.db")
    return Path(path)
