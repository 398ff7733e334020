"""What the commands of operators share: the journal, without its lock, and how things are shown."""

import asyncio
import re
import secrets
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final

import msgspec

from server.commands.common import CommandError, settings_of
from server.journal.log import JournalError
from server.journal.opening import open_store
from server.journal.store import PENDING, REFUSED, Command, Store

EXIT_CODES: Final = """\
exit codes: 0 done, 1 refused or not found, 2 wrong usage or no journal there, 3 recorded, but not
carried out in time (it will be), 130 Ctrl-C.
"""

WAIT_SECONDS: Final = 5.0
POLL_SECONDS: Final = 0.1

_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhd]?)")


@asynccontextmanager
async def journal_of(arguments: Namespace) -> AsyncGenerator[Store]:
    """Open the configured journal, which must be there, beside the server that may write it."""
    settings = settings_of(arguments)
    try:
        store = await open_store(
            settings.journal, log=False, make=False, history_ttl_seconds=settings.history_ttl
        )
        try:
            yield store
        finally:
            await store.close()
    except (JournalError, ValueError) as error:
        raise CommandError(str(error), exit_code=2) from error


def duration(text: str) -> float:
    """Parse `90`, `90s`, `5m`, `2h` or `7d` to seconds (an argparse type)."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ArgumentTypeError(f"{text!r} is no duration such as 90, 90s, 5m, 2h or 7d")
    return float(match[1]) * _UNITS[match[2]]


def request_name(text: str) -> tuple[str, int]:
    """Parse SESSION:N (an argparse type)."""
    session, _, n = text.rpartition(":")
    if not session or not n.isascii() or not n.isdigit() or len(n) > 15:
        raise ArgumentTypeError(f"{text!r} is not SESSION:N, as in the first column of the list")
    return session, int(n)


def count(text: str) -> int:
    """Parse a number of at least 1 (an argparse type)."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:12]) <= 10_000_000:
        raise ArgumentTypeError(f"{text!r} is no number from 1 to 10000000")
    return int(text)


def shown(value: object) -> str:
    """Return `value` for a terminal: what clients choose may be full of control characters."""
    if value is None or value == "":
        return "-"
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode()
        for c in str(value)
    )


def ago(at: float | None) -> str:
    """Return the age of a Unix time, in its largest unit."""
    if at is None:
        return "-"
    return f"{_span(time.time() - at)} ago"


def took(start: float | None, end: float | None) -> str:
    """Return the time from `start` to `end`."""
    if start is None or end is None:
        return "-"
    return f"{max(end - start, 0.0):.3f} s"


def local(at: float | None) -> str:
    """Return a Unix time as that of the machine's clock."""
    if at is None:
        return "-"
    return datetime.fromtimestamp(at).astimezone().isoformat(sep=" ", timespec="seconds")


def _span(seconds: float) -> str:
    seconds = max(seconds, 0.0)
    for unit in ("d", "h", "m"):
        if seconds >= _UNITS[unit]:
            return f"{seconds // _UNITS[unit]:.0f}{unit}"
    return f"{seconds:.0f}s"


def add_wait(parser: ArgumentParser) -> None:
    """Declare how long to wait for the server."""
    parser.add_argument(
        "--wait",
        type=duration,
        default=WAIT_SECONDS,
        metavar="SECONDS",
        help="how long to wait for a server to carry it out (default: %(default)g)",
    )


async def carry_out(store: Store, kind: str, target: str, wait_seconds: float) -> int:
    """Give a command to the server that has the sessions, and wait; return the exit code.

    Without a server it is recorded, and carried out when one starts.
    """
    command = Command(
        id=f"{time.time_ns():016x}-{secrets.token_hex(6)}",
        kind=kind,
        target=target,
        created_at=time.time(),
    )
    await store.commands.put(command)
    deadline = time.monotonic() + wait_seconds
    while True:
        now = await store.commands.get(command.id)
        if now is not None and now.status != PENDING:
            print(shown(now.outcome), file=sys.stderr if now.status == REFUSED else sys.stdout)
            return 1 if now.status == REFUSED else 0
        if time.monotonic() >= deadline:
            break
        await asyncio.sleep(POLL_SECONDS)
    print(
        f"recorded, but not carried out within {wait_seconds:g} s: that is done when a server "
        "runs, and when a handler that is to be stopped lets go",
        file=sys.stderr,
    )
    return 3


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print `rows` below `header`, aligned; every cell must be `shown`."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        print("  ".join(map(str.ljust, row, widths)).rstrip())


def print_json(rows: Sequence[dict[str, Any]]) -> None:
    """Print `rows` as JSON, one object per line."""
    for row in rows:
        sys.stdout.write(msgspec.json.encode(row).decode() + "\n")
    sys.stdout.flush()
