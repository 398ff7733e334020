"""A server whose machine does as a test says: its disk, its power, its system, its clock (shim.c).

    Machine(directory) -> environment() for the process -> set() while it runs
    -> the process is killed -> lose_power()

A killed process leaves its writes in the page cache, so that killing it proves nothing about
`fsync`. `lose_power` takes back what was not made durable: all of it, or any part of it, since the
disk may have written some sectors and not others.
"""

import functools
import mmap
import random
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

_SOURCE: Final = Path(__file__).with_name("shim.c")
SECTOR_BYTES: Final = 512

_FIELDS: Final = (
    "write_errno",
    "sync_errno",
    "sync_delay_ms",
    "accept_errno",
    "fork_errno",
    "thread_errno",
    "clock_seconds",
    "writes_failed",
    "syncs_failed",
    "syncs_delayed",
    "accepts_failed",
)
_NOTE: Final = struct.Struct("=qqqqq")


@functools.cache
def _library() -> bytes:
    """Compile the shim; skip the test where that cannot be done."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler (apt install gcc libc6-dev)")
    with tempfile.TemporaryDirectory() as directory:
        library = Path(directory) / "shim.so"
        made = subprocess.run(
            [compiler, "-shared", "-fPIC", "-O2", "-o", library, _SOURCE, "-ldl", "-lpthread"],
            capture_output=True,
            check=False,
        )
        if made.returncode != 0:
            pytest.skip(f"the C compiler does not work here: {made.stderr.decode()[:200]}")
        return library.read_bytes()


class _Change(NamedTuple):
    """A change of a file; `new` is None when the file was cut at `offset`."""

    offset: int
    size_before: int
    old: bytes
    new: bytes | None
    durable: bool


class Machine:
    """One machine for the server whose journal is `directory`/journal.db."""

    def __init__(self, directory: Path) -> None:
        library = directory / "shim.so"
        library.write_bytes(_library())
        control = directory / "control"
        control.write_bytes(bytes(8 * len(_FIELDS)))
        with control.open("r+b") as file:
            self._control = mmap.mmap(file.fileno(), 0)
        self._directory = directory
        self._notes = directory / "notes"
        self._notes.mkdir()
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAULTS_FILES": str(directory / "journal.db"),
            "FAULTS_CONTROL": str(control),
            "FAULTS_NOTES": str(self._notes),
        }

    def set(self, **fields: int) -> None:
        """Set errors (`write_errno` ...), delays and the clock; 0 is as it should be."""
        for name, value in fields.items():
            struct.pack_into("=q", self._control, 8 * _FIELDS.index(name), value)

    def get(self, name: str) -> int:
        """Return a field, for example how often something failed (`syncs_failed`)."""
        (value,) = struct.unpack_from("=q", self._control, 8 * _FIELDS.index(name))
        return int(value)

    def lose_power(self, dice: random.Random | None = None) -> int:
        """Take back what the killed process had not made durable; return how many bytes.

        With `dice`, any sectors of it may have reached the disk.
        """
        lost = 0
        for undo in self._notes.glob("*.undo"):
            changes = list(_changes(undo.read_bytes()))
            undo.unlink()
            file = self._directory / undo.stem
            if file.exists():
                _take_back(file, changes)
                if dice is not None:
                    _bring_some(file, changes, dice)
                lost += sum(len(change.new or b"") for change in changes)
        for notes in self._notes.glob("*.lost"):
            file = self._directory / notes.stem
            if file.exists():
                _lose(file, list(_changes(notes.read_bytes())))
            notes.unlink()
        created = self._notes / "created"
        if created.exists():
            for name in created.read_text().split():
                (self._directory / name).unlink(missing_ok=True)
            created.unlink()
        (self._directory / "journal.db-shm").unlink(missing_ok=True)
        return lost


def _changes(notes: bytes) -> Iterator[_Change]:
    at = 0
    while at + _NOTE.size <= len(notes):
        offset, size_before, old_length, new_length, durable = _NOTE.unpack_from(notes, at)
        at += _NOTE.size
        old = notes[at : at + old_length]
        at += old_length
        new = None if new_length < 0 else notes[at : at + new_length]
        at += max(0, new_length)
        if at <= len(notes):  # the process may have been killed while it noted the last one
            yield _Change(offset, size_before, old, new, bool(durable))


def _take_back(file: Path, changes: list[_Change]) -> None:
    with file.open("r+b") as data:
        for change in reversed(changes):
            data.truncate(change.size_before)
            data.seek(change.offset)
            data.write(change.old)


def _lose(file: Path, changes: list[_Change]) -> None:
    """Take back what a sync failed for, but where something durable was written over it."""
    with file.open("r+b") as data:
        size = file.stat().st_size
        for position in range(len(changes) - 1, -1, -1):
            change = changes[position]
            if change.durable or change.new is None:
                continue
            old = change.old.ljust(len(change.new), b"\0")
            kept = bytearray(len(old))  # 1 for each byte that was written over
            for later in changes[position + 1 :]:
                if later.durable and later.new is not None:
                    first = max(0, later.offset - change.offset)
                    last = min(len(kept), later.offset + len(later.new) - change.offset)
                    kept[first:last] = b"\1" * max(0, last - first)
            for at, is_kept in enumerate(kept):
                if not is_kept and change.offset + at < size:
                    data.seek(change.offset + at)
                    data.write(old[at : at + 1])


def _bring_some(file: Path, changes: list[_Change], dice: random.Random) -> None:
    """Write any sectors of what was taken back."""
    with file.open("r+b") as data:
        for change in changes:
            if change.new is None:
                if dice.random() < 0.5:
                    data.truncate(change.offset)
                continue
            at = 0
            while at < len(change.new):
                end = min(len(change.new), at + SECTOR_BYTES - (change.offset + at) % SECTOR_BYTES)
                if dice.random() < 0.5:
                    data.seek(change.offset + at)
                    data.write(change.new[at:end])
                at = end
