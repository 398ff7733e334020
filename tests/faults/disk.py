"""A small disk of a test's own: a tmpfs that can be filled, and emptied again."""

import subprocess
from pathlib import Path

import pytest

_MOUNT = "/bin/mount"
_UNMOUNT = "/bin/umount"


class SmallDisk:
    """Mounted at `path`; needs root, and Linux."""

    def __init__(self, path: Path, mebibytes: int) -> None:
        self.path = path
        self._ballast = path / "ballast"
        path.mkdir()
        if not Path(_MOUNT).exists():
            pytest.skip(f"needs {_MOUNT} for a disk to fill")
        mounted = subprocess.run(
            [_MOUNT, "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=700", "faults", path],
            capture_output=True,
            text=True,
            check=False,
        )
        if mounted.returncode != 0:
            pytest.skip(f"cannot mount a disk to fill: {mounted.stderr.strip()}")

    def fill(self) -> None:
        """Leave not one byte."""
        with self._ballast.open("ab", buffering=0) as ballast:
            for size in (1 << 20, 4096, 1):
                try:
                    while True:
                        ballast.write(bytes(size))
                except OSError:
                    pass  # full, for pieces of that size

    def free(self) -> None:
        """Make room again."""
        self._ballast.unlink()

    def make_read_only(self) -> None:
        """Remount it; nobody may have a file open for writing."""
        subprocess.run([_MOUNT, "-o", "remount,ro", self.path], check=True)

    def make_writable(self) -> None:
        """Undo `make_read_only`."""
        subprocess.run([_MOUNT, "-o", "remount,rw", self.path], check=True)

    def unmount(self) -> None:
        """Remove it, when nobody has a file open there."""
        subprocess.run([_UNMOUNT, self.path], check=True)
