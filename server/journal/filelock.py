"""A lock on a path that ends with the process holding it, however the process ends.

A POSIX record lock (fcntl) rather than flock: children made by fork do not inherit it, so a
worker process that outlives a killed server does not keep the next server out.
"""

import fcntl
import os
from pathlib import Path
from typing import Final

from server.journal.log import JournalError, Locked

# Record locks do not exclude the process itself; this does.
_held: Final[set[Path]] = set()


class FileLock:
    """Holds `path` (created when missing, never deleted) until `release`.

    Raises Locked, naming the process that holds it, and JournalError when the file cannot be made
    or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()
        if self._path in _held:
            raise Locked(f"{path} is locked by this very process ({os.getpid()})")
        try:
            # For its owner only: who can read it could hold up the server with a lock of his own.
            # Unbuffered: what a full disk did not take must not be tried again by `close`.
            descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            self._file = os.fdopen(descriptor, "a+b", buffering=0)
        except OSError as error:
            raise JournalError(f"cannot open the lock file {path}: {error.strerror}") from error
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:  # EAGAIN or EACCES, says POSIX
            self._file.seek(0)
            holder = self._file.read(20).decode("ascii", "replace").strip()
            self._file.close()
            who = f"process {holder}" if holder else "another process"
            raise Locked(f"{path} is locked by {who}") from error
        try:
            self._file.truncate(0)
            self._file.write(b"%d\n" % os.getpid())
        except OSError as error:
            self._file.close()
            raise JournalError(f"cannot write the lock file {path}: {error.strerror}") from error
        _held.add(self._path)

    def release(self) -> None:
        """Let the next one in."""
        self._file.close()
        _held.discard(self._path)
