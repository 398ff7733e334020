"""The history of real clients: what protocol/client.py sends and gets, as it does."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from typing import Any, Final

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from protocol import client
from scripts.checking.history import Writer, shortened_frame

who: Final[ContextVar[str]] = ContextVar("who")
"""The name of the client in whose task a connection is dialled."""

_dial: Final = client.dial
_numbers: Final = count(1)


class Recorded:
    """A connection of the client `name`, with the calls that protocol/client.py makes."""

    def __init__(self, connection: ClientConnection, name: str, history: Writer) -> None:
        self.transport = connection.transport
        self._connection = connection
        self._history = history
        self._fields = {"client": name, "conn": next(_numbers)}
        self._over = False
        history.write("connect", **self._fields, server="")

    async def send(self, message: bytes, text: bool) -> None:
        """Send `message`, once it is noted."""
        self._note("send", message)
        await self._connection.send(message, text=text)

    async def recv(self, decode: bool) -> bytes:
        """Return the next message, once it is noted."""
        try:
            message: Any = await self._connection.recv(decode=decode)
        except ConnectionClosed as closed:
            self._end(None if closed.rcvd is None else int(closed.rcvd.code))
            raise
        except BaseException:
            self._end(None)
            raise
        self._note("recv", message)
        return message

    async def close(self) -> None:
        """Close it."""
        await self._connection.close()

    def _note(self, ev: str, message: bytes) -> None:
        if self._over:
            return
        for line in _lines(message):
            frame = shortened_frame(msgspec.json.decode(line))
            self._history.write(ev, **self._fields, frame=frame)

    def _end(self, code: int | None) -> None:
        if not self._over:
            self._over = True
            self._history.write("disconnect", **self._fields, code=code)


@contextmanager
def recorded(history: Writer) -> Iterator[None]:
    """Record the connections of all clients of this process in `history` meanwhile."""

    async def dial(url: str, **options: Any) -> Any:
        return Recorded(await _dial(url, **options), who.get(), history)

    client.dial = dial
    try:
        yield
    finally:
        client.dial = _dial


def _lines(message: bytes) -> Iterable[bytes]:
    return (line for line in message.split(b"\n") if line)
