"""How much memory the process has, how much it is to have, and what to do about it.

Every bound of a session and a server counts what is known to be held. This one looks at what the
process really has, whoever took it: a handler, a library, many small things that nobody counts.
"""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

SHARE: Final = 0.8
"""Without a setting, so much of the machine's memory, or of its control group's, is the mark."""
LOW_SHARE: Final = 0.9
"""It is over when there is no more than so much of the mark."""

_log = structlog.get_logger(__name__)


class MemoryWatch:
    """Tells whether the process has more memory than `mark_bytes`; 0 for no bound.

    `high` holds from then on until it has less than LOW_SHARE of that.
    """

    def __init__(self, mark_bytes: int, resident: Callable[[], int] | None = None) -> None:
        self.mark_bytes = mark_bytes
        self.high = False
        self._resident = resident or resident_bytes

    def sweep(self) -> bool:
        """Look again, and tell; called every second."""
        if not self.mark_bytes:
            return False
        if self.high:
            _give_back()
        size = self._resident()
        if not self.high and size > self.mark_bytes:
            self.high = True
            _log.error("memory_high", resident_bytes=size, mark_bytes=self.mark_bytes)
        elif self.high and size < LOW_SHARE * self.mark_bytes:
            self.high = False
            _log.warning("memory_normal", resident_bytes=size, mark_bytes=self.mark_bytes)
        return self.high


def resident_bytes() -> int:
    """Return what the process has in memory now; 0 where that is not known (not Linux)."""
    try:
        pages = int(Path("/proc/self/statm").read_bytes().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def default_mark_bytes() -> int:
    """Return SHARE of what the process could have at most."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    groups = group_limits(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    return int(SHARE * min([machine, *groups]))


def group_limits(membership: Path, root: Path) -> list[int]:
    """Return the limits of the control groups (both versions) that `membership` names.

    A group is bounded by those around it too. In a container its path may be that on the host,
    of which only the upper end is there.
    """
    try:
        lines = membership.read_text(encoding="ascii").splitlines()
    except OSError:
        return []
    limits: list[int] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            limits += _limits(root, path, "memory.max")
        elif "memory" in controllers.split(","):
            limits += _limits(root / "memory", path, "memory.limit_in_bytes")
    return limits


def _limits(root: Path, path: str, name: str) -> list[int]:
    group = root / path.lstrip("/")
    limits: list[int] = []
    for folder in (group, *group.parents):
        if not folder.is_relative_to(root):
            break
        try:
            text = (folder / name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdecimal():  # not `max`
            limits.append(int(text))
    return limits


def _give_back() -> None:
    """Give the system what the C library has kept of what was freed (glibc, malloc_trim(3))."""
    if _trim is not None:
        _trim(0)


_trim: Final = getattr(ctypes.CDLL(None), "malloc_trim", None)
