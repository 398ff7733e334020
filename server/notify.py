"""What systemd is told of this process: that it is ready, stops, is alive (sd_notify(3)).

    READY=1 -> WATCHDOG=1, again and again, from the event loop -> STOPPING=1

Where systemd does not ask to be told, nothing happens.
"""

import asyncio
import os
import socket
from collections.abc import MutableMapping
from typing import Final

import structlog

SEND_SECONDS: Final = 0.5
"""How long a message may wait for systemd; then it is dropped."""
PINGS_PER_TIMEOUT: Final = 2
"""So often the watchdog is told within its time (sd_watchdog_enabled(3))."""

_log = structlog.get_logger(__name__)


class Notifier:
    """Takes what it goes by out of `environ`: the processes started from here are not asked.

    `watchdog_seconds` is after how much silence systemd ends this process; None for never.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        address = environ.pop("NOTIFY_SOCKET", "")
        microseconds = environ.pop("WATCHDOG_USEC", "")
        watched = environ.pop("WATCHDOG_PID", str(os.getpid()))
        # An @ stands for the zero byte of a name that is in no file system.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_seconds: float | None = None
        if address and microseconds and watched == str(os.getpid()):
            self.watchdog_seconds = int(microseconds) / 1e6

    def ready(self, status: str) -> None:
        """Say that clients are served; `status` is for people."""
        self._tell(f"READY=1\nSTATUS={status}")

    def stopping(self, status: str) -> None:
        """Say that this process is about to end."""
        self._tell(f"STOPPING=1\nSTATUS={status}")

    async def keep_alive(self) -> None:
        """Tell the watchdog for ever that the event loop runs; returns when there is none."""
        while self.watchdog_seconds is not None:
            self._tell("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_seconds / PINGS_PER_TIMEOUT)

    def _tell(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
                one.settimeout(SEND_SECONDS)
                one.sendto(message.encode(), self._address)
        except OSError as error:
            _log.warning("systemd_not_told", what=message.partition("=")[0], error=str(error))
