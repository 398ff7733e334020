"""Checkpoints: write the live set into the log, so that what came before can be trimmed.

The snapshots ride along with ordinary commits, a slice at a time; nothing stops for them. All
entries made before the first snapshot are in commits before `begin` or are repeated by the
snapshots after it, so folding may start anywhere up to `begin` (state.apply passes over entries
of sessions it has not met yet).
"""

from collections.abc import Iterable
from typing import Final

from server.journal.committer import Committer
from server.journal.entries import Snapshot
from server.journal.projection import project
from server.journal.store import Store

SLICE_SESSIONS: Final = 100
"""Snapshots per commit."""


class Checkpointer:
    """Decides when a checkpoint is due, and makes it.

    One is due when the log has grown by `every_bytes` and by twice what the last one wrote, so
    that checkpoints never cost more than half of what the log costs.
    """

    def __init__(self, store: Store, committer: Committer, every_bytes: int) -> None:
        self._store = store
        self._committer = committer
        self._every_bytes = every_bytes
        self._bytes_at_last = 0
        self._cost_of_last = 0

    def due(self) -> bool:
        """Tell whether the log has grown enough."""
        grown = self._committer.bytes_written - self._bytes_at_last
        return grown >= max(self._every_bytes, 2 * self._cost_of_last)

    async def checkpoint(self, snapshots: Iterable[Snapshot]) -> None:
        """Write `snapshots` (one of every session, taken lazily), then trim the log."""
        committer = self._committer
        begin = committer.next_seq
        before = committer.bytes_written
        waiting = 0
        for snapshot in snapshots:
            committer.ride(snapshot)
            waiting += 1
            if waiting == SLICE_SESSIONS:
                await committer.durable()
                waiting = 0
        await committer.durable()
        self._bytes_at_last = committer.bytes_written
        self._cost_of_last = committer.bytes_written - before
        projected = await project(self._store, committer.owner)
        await self._store.log.trim(committer.owner, min(begin - 1, projected))
