"""Looking at the server's process from outside: its memory, its open files, its log."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Final

FAILURES: Final = frozenset({"error", "critical"})


class Watch:
    """`failures` are lines of the log that tell of something the server did not expect."""

    def __init__(self, pid: int, log: Path) -> None:
        self.levels: Counter[str] = Counter()
        self.failures: list[str] = []
        self._proc = Path(f"/proc/{pid}")
        self._log = log
        self._read = 0

    def memory_bytes(self) -> int:
        """Return how much memory the process has (VmRSS)."""
        status = (self._proc / "status").read_text(encoding="ascii")
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def files(self) -> int:
        """Return how many files and sockets the process has open."""
        return len(os.listdir(self._proc / "fd"))  # noqa: PTH208 - no more than their number

    def read_log(self) -> list[str]:
        """Read what is new in the log; return the failures in it."""
        with self._log.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        whole = data.rpartition(b"\n")[0]
        self._read += len(whole) + 1 if whole else 0
        found: list[str] = []
        for line in whole.decode(errors="replace").splitlines() if whole else ():
            level = _level(line)
            self.levels[level] += 1
            if level in FAILURES or level == "unknown":
                found.append(line)
        self.failures += found
        return found


def _level(line: str) -> str:
    """Return the level of a line, "unknown" for what is not a line of our log."""
    try:
        event = json.loads(line)
        return "error" if "exception" in event else str(event["level"])
    except (ValueError, KeyError, TypeError):
        return "unknown"
