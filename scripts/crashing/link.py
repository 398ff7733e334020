"""One connection of a client: everything that is said on it is recorded."""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from typing import Any, Final, cast

import msgspec

from scripts.bench.framing import TEXT, frame
from scripts.checking.history import DATA_BYTES_MAX, Writer, shortened
from scripts.loadtesting.websocket import ABNORMAL, Lost, Socket, Target

from .place import Place

DIAL_SECONDS: Final = 10.0
_numbers = count(1)
# Linger for no time: closing sends RST, and what was not sent yet is lost (socket(7)).
_NO_LINGER: Final = struct.pack("ii", 1, 0)

Frame = dict[str, Any]


class Link:
    """A WebSocket of client `name`, whose token is `token`. `number` is unique in the run."""

    def __init__(self, name: str, token: str, history: Writer) -> None:
        self.number = next(_numbers)
        self.arrived = asyncio.Event()
        """Set when a frame has come, and when the connection is gone."""
        self.frames: deque[Frame] = deque()
        self.closed: int | None = None
        """The close code, once it is gone; 1006 when there was none."""
        self._name = name
        self._token = token
        self._history = history
        self._socket: Socket
        self._transport: asyncio.Transport

    async def dial(self, place: Place) -> bool:
        """Connect and shake hands; tell whether that came about."""
        server = place.server
        target = Target("127.0.0.1", place.port, "/ws", None)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                transport, self._socket = await loop.create_connection(
                    lambda: Socket(target, self._receive), target.host, target.port
                )
                self._transport = cast("asyncio.Transport", transport)
                try:
                    await self._socket.opened
                except BaseException:
                    transport.abort()
                    raise
        except (OSError, TimeoutError, Lost):
            return False
        # What listens there now may be another than what was dialled.
        known = server if server == place.server else ""
        self._record("connect", server=known)
        self._socket.closed.add_done_callback(self._lost)
        return True

    def send(self, frames: Sequence[Frame]) -> None:
        """Send frames in one message; the token goes into those that carry one, but not into the
        history.
        """
        if not frames:
            return
        lines: list[bytes] = []
        for one in frames:
            self._record("send", frame=one)
            lines.append(msgspec.json.encode(self._with_token(one)))
        self._socket.send(b"\n".join(lines))

    def _with_token(self, one: Frame) -> Frame:
        return {**one, "token": self._token} if one["type"] in {"hello", "refresh"} else one

    def tear(self, frames: Sequence[Frame]) -> None:
        """Send the first half of a message, and cut the connection off."""
        message = frame(
            TEXT, b"\n".join(msgspec.json.encode(self._with_token(one)) for one in frames)
        )
        with suppress(RuntimeError):  # uvloop's for a connection that is gone
            self._transport.write(message[: len(message) // 2])
        self.reset()

    def reset(self) -> None:
        """End the connection as a crash of the client's machine might: RST."""
        raw = self._transport.get_extra_info("socket")
        if raw is not None:  # else it is gone already
            with suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._transport.abort()

    def abort(self) -> None:
        """End the connection without a closing handshake: FIN."""
        self._transport.abort()

    def _receive(self, messages: list[bytes]) -> None:
        for message in messages:
            for line in message.split(b"\n"):
                if line:
                    self._take(line)
        self.arrived.set()

    def _take(self, line: bytes) -> None:
        one: Frame = msgspec.json.decode(line)
        if len(line) > DATA_BYTES_MAX and "data" in one:
            one["data"] = shortened(one["data"])
        self._record("recv", frame=one)
        self.frames.append(one)

    def _lost(self, closed: "asyncio.Future[Lost]") -> None:
        code = closed.result().code
        self._record("disconnect", code=None if code == ABNORMAL else code)
        self.closed = code
        self.arrived.set()

    def _record(self, ev: str, **fields: Any) -> None:
        self._history.write(ev, client=self._name, conn=self.number, **fields)
