"""What all connections of a process share: where to, what to send, and what was counted."""

import asyncio
from collections.abc import Iterable
from random import Random
from typing import Final, Protocol

from protocol.codec import encode

from .meter import Meter
from .tokens import Tokens
from .websocket import Target

CONNECTING_MAX: Final = 50
"""Handshakes of a process on their way at one time."""
ID_BYTES_MAX: Final = 20


class Session(Protocol):
    """Whose last replies are waited for."""

    @property
    def idle(self) -> bool:
        """Tell whether nothing is to be sent and nothing to come."""
        ...


class Workload:
    """What all connections of a process share.

    `template` % k is the frame of request k; `welcomed` counts the sessions that were opened;
    `drained` is set when after `drain` nothing is to be sent, and nothing to come, any more.
    """

    def __init__(
        self,
        target: Target,
        tokens: Tokens,
        *,
        method: str,
        params: bytes,
        window: int,
        open_loop: bool,
        random: Random,
    ) -> None:
        self.target = target
        self.tokens = tokens
        self.window = window
        self.open_loop = open_loop
        self.random = random
        self.meter = Meter(open_loop=open_loop)
        self.dialing = asyncio.Semaphore(CONNECTING_MAX)
        self.welcomed = 0
        self.drained = asyncio.Event()
        self._busy: set[Session] | None = None
        self.template = b'{"type":"request","id":"%%d","method":%b,"params":%b}' % (
            encode(method).replace(b"%", b"%%"),
            params.replace(b"%", b"%%"),
        )
        self.frame_bytes_max = len(self.template) + ID_BYTES_MAX

    def drain(self, sessions: Iterable[Session]) -> None:
        """Wait for the last replies: set `drained` when they have come."""
        self._busy = {session for session in sessions if not session.idle}
        if not self._busy:
            self.drained.set()

    def settled(self, session: Session) -> None:
        """Note that `session` has nothing to send and nothing to come, for now."""
        if self._busy is not None:
            self._busy.discard(session)
            if not self._busy:
                self.drained.set()
