"""What the server says in its log that a server should never have to say."""

from pathlib import Path
from typing import Final

import msgspec

LOCKED: Final = "is locked by process"
TAIL_BYTES: Final = 4000

_EXPECTED: Final = {
    # That one is made to fail; a server that was replaced ends though handlers still run.
    "handler_failed": ("ValueError: broken", "PoolsClosed: the server stops"),
    "handlers_do_not_stop": ("",),  # threads cannot be ended
    "journal_unavailable": ("MongoDB", "no answer for"),  # killed, or slow under this load
    "start_failed": (LOCKED,),
    "journal_lost": ("the log has something else as",),  # the end of one that was replaced
}
"""What may be there at level error or above, and what of this must be in that line."""


def complaint(log: Path) -> str:
    """Return the first line at level error or above that is not expected; empty when none is."""
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            said = msgspec.json.decode(line)
        except msgspec.DecodeError:
            continue  # of a pool's process whose server was killed while it started, for example
        expected = _EXPECTED.get(said["event"], ())
        if said["level"] in {"error", "critical"} and not any(text in line for text in expected):
            return line
    return ""


def tail(log: Path) -> str:
    """Return the end of the log, to be shown with a failure."""
    return log.read_bytes()[-TAIL_BYTES:].decode(errors="replace") if log.exists() else ""
