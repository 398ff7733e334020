"""What all sessions of a process have in common, and how it is shared among subjects. No I/O.

A subject may have SHARE_FACTOR times what is free of a limit: two thirds when nobody else has
anything, less and less as it fills, so that something is left for every newcomer. (Switches share
their packet buffers so: Choudhury and Hahne, dynamic queue length thresholds.)
"""

from typing import Final

SHARE_FACTOR: Final = 2
"""See above."""


class Shares:
    """So much of something that there is `limit` of; `held` is what all subjects have of it."""

    __slots__ = ("_held_by", "held", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._held_by: dict[str, int] = {}

    def hold(self, subject: str, size: int) -> None:
        """Count `size` more (or fewer) for `subject`."""
        held = self._held_by.get(subject, 0) + size
        if held:
            self._held_by[subject] = held
        else:
            self._held_by.pop(subject, None)
        self.held += size

    def room(self, subject: str) -> int:
        """Return how many more `subject` may have; not above 0 when none."""
        free = self.limit - self.held
        return (SHARE_FACTOR * free - self._held_by.get(subject, 0)) // (SHARE_FACTOR + 1)


class Load:
    """Whether sessions may take on more: `unfinished` counts the requests of all of them.

    `memory_high` is set while the process has more memory than it is to have (memory.py).
    """

    __slots__ = ("memory_high", "unfinished")

    def __init__(self, max_unfinished: int = 100_000) -> None:
        self.unfinished = Shares(max_unfinished)
        self.memory_high = False

    def room(self, subject: str) -> int:
        """Return how many requests more `subject` may have accepted; not above 0 when none."""
        return 0 if self.memory_high else self.unfinished.room(subject)
