"""Where a benchmark ran: the machine, the versions, the disk below the journal."""

import os
import platform
import sqlite3
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

BUSY_LOAD: Final = 0.5
"""A load average above this, before anything was started, is somebody else's work."""


def machine() -> dict[str, Any]:
    """Return what the numbers depend on, for the report and its JSON."""
    return {
        "cores": os.cpu_count(),
        "cpu": _cpu_model(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "websockets": version("websockets"),
        "uvloop": version("uvloop"),
        "queuesystem": version("queuesystem"),
        "sqlite": sqlite3.sqlite_version,
        "load_average": os.getloadavg()[0],
    }


def filesystem(directory: Path) -> str:
    """Return the type of the file system `directory` is on, or `unknown`."""
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8")
    except OSError:
        return "unknown"
    best, kind = Path("/"), "unknown"
    for line in mounts.splitlines():
        point, name = line.split()[1:3]
        path = Path(point)
        if directory.resolve().is_relative_to(path) and len(path.parts) >= len(best.parts):
            best, kind = path, name
    return kind


def _cpu_model() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in info.splitlines() if "model name" in line)
    return next(names, platform.machine())
