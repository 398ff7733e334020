"""What every store asks of an owner's name, and says when an append does not fit."""

from typing import Final

from server.journal.log import JournalError

OWNER_LENGTH_MAX: Final = 128


def check_owner(owner: str) -> None:
    """Raise ValueError for a name that is empty, too long, or holds a slash or NUL."""
    if not 0 < len(owner) <= OWNER_LENGTH_MAX or "/" in owner or "\0" in owner:
        raise ValueError(f"not an owner's name: {owner!r}")


def check_next(owner: str, seq: int, last: int) -> None:
    """Raise JournalError when commit `seq` cannot follow commit `last`, nor repeat an older one."""
    if not 1 <= seq <= last + 1:
        raise JournalError(f"commit {seq} of {owner} does not follow its last commit, {last}")
