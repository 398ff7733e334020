"""Checkpoints: write the live set into the log, so that what came before can be trimmed.

The snapshots ride along with ordinary commits, a slice at a time; nothing stops for them. All
entries made before the first snapshot are in commits before `begin` or are repeated by the
snapshots after it, so folding may start anywhere up to `begin` (state.apply passes over entries
of sessions it has not met yet).
"""

from collections.abc import Iterable
from typing import Final

from server.journal.committer import Committer
from server.journal.projection import Projector
from server.journal.store import Store

SLICE_SESSIONS: Final = 100
"""So many snapshots are one commit,"""
SLICE_BYTES: Final = 1024 * 1024
"""or so many bytes of them: what else is to be committed waits for as long as that takes."""


class Checkpointer:
    """Decides when a checkpoint is due, and makes it.

    One is due when the log has grown by `every_bytes` and by twice what the last one wrote, so
    that checkpoints never cost more than half of what the log costs. `checkpoints` counts them.
    """

    def __init__(
        self, store: Store, committer: Committer, projector: Projector, every_bytes: int
    ) -> None:
        self.checkpoints = 0
        self._store = store
        self._committer = committer
        self._projector = projector
        self._every_bytes = every_bytes
        self._bytes_at_last = 0
        self._cost_of_last = 0

    def due(self) -> bool:
        """Tell whether the log has grown enough."""
        grown = self._committer.bytes_written - self._bytes_at_last
        return grown >= max(self._every_bytes, 2 * self._cost_of_last)

    async def checkpoint(self, snapshots: Iterable[int]) -> None:
        """Write a snapshot of every session, then trim the log.

        Each step through `snapshots` puts the snapshot of one session into the log, behind what
        that session has said before, and gives its size in bytes.
        """
        committer = self._committer
        begin = committer.next_seq
        before = committer.bytes_written
        waiting = waiting_bytes = 0
        for size in snapshots:
            waiting += 1
            waiting_bytes += size
            if waiting == SLICE_SESSIONS or waiting_bytes >= SLICE_BYTES:
                await committer.durable()
                waiting = waiting_bytes = 0
        await committer.durable()
        self._bytes_at_last = committer.bytes_written
        self._cost_of_last = committer.bytes_written - before
        projected = await self._projector.run()
        await self._store.log.trim(committer.owner, min(begin - 1, projected))
        self.checkpoints += 1
