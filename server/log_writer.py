"""Lines of the log to a file descriptor, without ever waiting for who reads it.

    line -> written at once while the descriptor takes it: also the last one before a crash
         -> else kept, and written in order by a thread that waits in our place
         -> beyond BACKLOG_BYTES_MAX dropped, counted, and told of once the rest was taken

A pipe that is ready takes PIPE_BUF bytes without blocking (POSIX), so a long line goes in pieces.
Another process may fill it in between, so a pipe is opened once more, non-blocking. The descriptor
itself is not made so: that would hold for every process that shares it, the shell among them.
"""

import os
import select
import stat
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

BACKLOG_BYTES_MAX: Final = 1024 * 1024
"""What waits for a reader at most; it is lost when the process is killed."""


class LineWriter:
    """Writes whole lines, from any thread; a line that the descriptor refuses is dropped.

    `announce(count)` makes the line that says how many were dropped. `dropped` counts those since
    the start.
    """

    def __init__(self, descriptor: int, announce: Callable[[int], str]) -> None:
        self.dropped = 0
        self._descriptor = descriptor = _opened_again(descriptor)
        self._announce = announce
        self._lock = threading.Lock()
        self._drained = threading.Condition(self._lock)
        self._backlog: deque[bytes] = deque()
        self._backlog_bytes = 0
        self._draining = False
        self._gap = 0  # dropped, and not told of yet
        self._mid_line = False
        self._ready = _poll(descriptor)

    def write(self, text: str) -> None:
        """Write `text`, which ends with a newline, or keep it, or drop it. Never blocks."""
        line = text.encode("utf-8", "backslashreplace")
        with self._lock:
            # Once a line was dropped all are until the backlog is written: one gap, told of once.
            told = not self._gap or (not self._draining and self._tell_gap())
            if not told or not self._put(line):
                self._drop()

    def flush(self, seconds: float) -> None:
        """Wait until what was kept is written, for so long at most."""
        with self._lock:
            self._drained.wait_for(lambda: not self._draining, timeout=seconds)

    # Under the lock

    def _tell_gap(self) -> bool:
        if not self._put(self._announce(self._gap).encode()):
            return False
        self._gap = 0
        return True

    def _put(self, line: bytes) -> bool:
        """Write or keep `line`; False when neither can be."""
        if self._draining:
            return self._keep(line)
        if self._mid_line:  # the last one could be written in part only
            line = b"\n" + line
        try:
            while line and self._ready.poll(0):
                line = self._write_piece(line)
        except OSError:  # a full disk, a closed pipe
            return False
        return not line or self._keep(line)

    def _keep(self, line: bytes) -> bool:
        if self._backlog_bytes + len(line) > BACKLOG_BYTES_MAX:
            return False
        if not self._draining:
            try:
                threading.Thread(target=self._drain, name="log", daemon=True).start()
            except RuntimeError:  # the system gives no thread
                return False
            self._draining = True
        self._backlog.append(line)
        self._backlog_bytes += len(line)
        return True

    def _drop(self) -> None:
        self._gap += 1
        self.dropped += 1

    # By whoever writes: one thread at a time

    def _write_piece(self, line: bytes) -> bytes:
        """Write what is sure not to block; return the rest."""
        try:
            count = os.write(self._descriptor, line[: select.PIPE_BUF])
        except BlockingIOError:
            return line  # somebody else was faster
        self._mid_line = line[count - 1] != _NEWLINE
        return line[count:]

    def _drain(self) -> None:
        """Write what was kept, in a thread of its own."""
        ready = _poll(self._descriptor)
        begun = True  # the first line may have been, by `_put`
        while (line := self._first()) is not None:
            if self._mid_line and not begun:
                line = b"\n" + line
            begun = False
            try:
                while line:
                    ready.poll()
                    line = self._write_piece(line)
            except OSError:
                with self._lock:
                    self._drop()
            with self._lock:
                self._backlog_bytes -= len(self._backlog.popleft())

    def _first(self) -> bytes | None:
        """Return the next line to write; None when that was all, and `write` does it again."""
        with self._lock:
            if self._backlog:
                return self._backlog[0]
            self._draining = False
            if self._gap:
                self._tell_gap()  # may begin to drain again
            self._drained.notify_all()
            return None


def _opened_again(descriptor: int) -> int:
    """Return a non-blocking descriptor of the same pipe, if it is one and the system gives one."""
    if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        with suppress(OSError):  # no Linux, somebody else's pipe, or nobody reads it any more
            return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK)
    return descriptor


def _poll(descriptor: int) -> select.poll:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return poll


_NEWLINE: Final = ord("\n")
