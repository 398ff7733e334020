"""A list of few requests costs little memory, however many the request log has."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.journal.buckets import Row, pack_finished
from server.journal.opening import open_store

ROOT = Path(__file__).parents[2]
REQUESTS = 100_000
EACH = 1000
LIST = (sys.executable, "-m", "server", "requests", "list", "--json")
ROOM_BYTES = 16 * 2**20
"""All of the requests take five times as much."""


async def fill(journal: str, requests: int) -> None:
    """Make a request log of so many requests, of ten sessions."""
    store = await open_store(journal)
    for first in range(0, requests, EACH):
        rows: list[Row] = [
            (n, f"request-{n}", "echo", "timeout" if n % 9 == 0 else "done", 1, 1, n, n, n + 0.5)
            for n in range(first, first + EACH)
        ]
        buckets = pack_finished(f"session-{first // EACH % 10}", "alice", rows)
        await store.history.project("1-a", first + 1, buckets, [])
    await store.close()


def listed(journal: str, *filters: str) -> tuple[int, int]:
    """Return how many lines are listed, and the most memory that took, in bytes."""
    process = subprocess.Popen(
        [*LIST, "--journal", journal, *filters],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        lines = len(process.stdout.readlines())
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return lines, used.ru_maxrss * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
async def test_a_long_history_is_listed_in_little_memory(tmp_path: Path) -> None:
    short, long = (f"sqlite:///{tmp_path / name}" for name in ("short.db", "long.db"))
    await fill(short, EACH)
    await fill(long, REQUESTS)
    _, little = listed(short, "--limit", "50")
    for filters, found in (
        ((), 50),
        (("--state", "failed"), 50),
        (("--method", "nothing"), 0),
        (("--older-than", "1s", "--newer-than", "1s"), 0),
    ):
        lines, most = listed(long, "--limit", "50", *filters)
        assert lines == found
        assert most - little < ROOM_BYTES
