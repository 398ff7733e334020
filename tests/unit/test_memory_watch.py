"""When a process has too much memory, and how much it may have."""

import os
from pathlib import Path

import pytest

from server.memory import MemoryWatch, default_mark_bytes, group_limits, resident_bytes


def test_it_is_high_above_the_mark_until_well_below_it() -> None:
    sizes = [1000, 1001, 950, 900, 899, 1000]
    watch = MemoryWatch(1000, lambda: sizes.pop(0))
    assert [watch.sweep() for _ in range(6)] == [False, True, True, True, False, False]


def test_without_a_mark_it_is_never_high() -> None:
    assert not MemoryWatch(0, lambda: 2**60).sweep()


def test_the_memory_of_this_process_is_seen() -> None:
    before = resident_bytes()
    held = bytearray(b"x") * (64 * 2**20)
    assert resident_bytes() - before > 32 * 2**20
    del held


def test_by_default_the_mark_is_within_the_machine() -> None:
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < default_mark_bytes() <= 0.8 * machine


def limits(folder: Path, membership: str, **files: str) -> list[int]:
    """Return the limits of a process in groups with these files, `/` in their names as `__`."""
    for name, text in files.items():
        path = folder / "root" / name.replace("__", "/").replace("memory_", "memory.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (folder / "cgroup").write_text(membership)
    return sorted(group_limits(folder / "cgroup", folder / "root"))


@pytest.mark.parametrize("membership", ["0::/a/b\n", "0::/a/b/not/there\n"])
def test_the_limits_of_a_group_and_those_around_it_count(tmp_path: Path, membership: str) -> None:
    files = {"a__memory_max": "1000", "a__b__memory_max": "max"}
    assert limits(tmp_path, membership, **files) == [1000]


def test_limits_of_the_first_version_of_groups_count(tmp_path: Path) -> None:
    membership = "5:cpu,cpuacct:/x\n4:memory:/a\n0::/\n"
    files = {"memory__a__memory_limit_in_bytes": "500", "memory__memory_limit_in_bytes": "900"}
    assert limits(tmp_path, membership, **files) == [500, 900]


def test_a_system_without_groups_has_no_limits(tmp_path: Path) -> None:
    assert group_limits(tmp_path / "cgroup", tmp_path) == []
