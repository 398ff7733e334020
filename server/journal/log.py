"""The journal as seen from the server: an append-only log per owner, and nothing else.

    append  -> durable when it returns
    read    -> what was appended, in order
    owners  -> the logs that exist
    seal    -> end a dead owner's log; its next append fails (fencing without locks)
    trim    -> forget what a checkpoint has made superfluous
    forget  -> delete a log that was taken over

Errors form one small tree:

    JournalError
    +-- Unavailable   the store cannot be reached or cannot write now: try the same call again
    +-- Sealed        somebody else ended this log: its owner has lost it and must stop
    +-- Locked        another process holds this store
    +-- Damaged       what was read is not what was written
"""

from collections.abc import AsyncGenerator, Collection
from typing import Protocol

from msgspec import Struct


class JournalError(Exception):
    """Any failure of the journal."""


class Unavailable(JournalError):
    """The store cannot be reached or cannot write now; the same call may be tried again."""


class Sealed(JournalError):
    """Another owner ended this log; whoever appended to it must stop."""


class Locked(JournalError):
    """Another process holds this store."""


class Damaged(JournalError):
    """What was read is not what was written: going on would lose or change requests silently."""


class LogInfo(Struct, frozen=True):
    """What is known of one log.

    `trimmed` is the highest seq that a checkpoint superseded (0: none): folding starts after it,
    though single older commits may have been spared. `sealed_by` names who ended the log, or None.
    """

    owner: str
    trimmed: int
    sealed_by: str | None


class Commit(Struct, frozen=True):
    """One durable batch of entries (see entries.py for what `data` holds)."""

    seq: int
    data: bytes


class LogReader(Protocol):
    """The logs of all owners in one store. `seq` counts 1, 2, 3 ... within an owner's log."""

    def read(self, owner: str, after: int) -> AsyncGenerator[Commit, None]:
        """Yield the commits with a seq greater than `after`, in order; never the seal."""
        ...

    async def owners(self) -> list[LogInfo]:
        """List the logs that hold at least one commit or a seal, oldest owner name first."""
        ...


class Log(LogReader, Protocol):
    """The logs, to write as well."""

    async def append(self, owner: str, seq: int, data: bytes) -> None:
        """Make `data` the commit `seq` of `owner`'s log; durable when it returns.

        `seq` must be one more than the last. Repeating an append with the same seq and data
        succeeds once more without effect. Raises Sealed when (owner, seq) holds anything else,
        the seal included, and Unavailable when the outcome is unknown or the store is gone:
        then the same append must be tried again until it succeeds or raises Sealed.
        """
        ...

    async def seal(self, owner: str, by: str) -> str:
        """End `owner`'s log on behalf of `by`; return who sealed it, which may be somebody else.

        The seal takes the place of commit `last + 1`, so that the next append of a living owner
        raises Sealed. Whoever writes that seq first wins; sealing twice changes nothing.
        """
        ...

    async def trim(self, owner: str, upto: int, spare: Collection[int] = ()) -> None:
        """Forget the commits of `owner` with seq <= `upto`, but those in `spare`."""
        ...

    async def forget(self, owner: str) -> None:
        """Delete all of `owner`'s log, its seal included. No error when there is none."""
        ...
