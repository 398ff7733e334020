"""A TCP proxy that does to the bytes between client and server what networks do.

    client -- up --> Proxy -- up --> server
           <- down --       <- down --

Each connection takes the next of `faults`; when they are used up, bytes pass unchanged.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

Direction = Literal["up", "down"]

READ_BYTES = 64 * 1024


@dataclass(frozen=True)
class Cut:
    """End the connection, on both sides, when `position` bytes have gone in that direction.

    `how` is a FIN, or a RST. What goes in the other direction meanwhile is not held back.
    """

    direction: Direction
    position: int
    how: Literal["fin", "rst"]


@dataclass(frozen=True)
class Shape:
    """Pass everything on, in both directions, but in another form.

    `piece_bytes` splits it into segments of that size; `delay_seconds` holds it back, and joins
    what comes meanwhile into one piece; `bytes_per_second` is how much gets through.
    """

    piece_bytes: int = READ_BYTES
    delay_seconds: float = 0.0
    bytes_per_second: float = float("inf")


@dataclass(frozen=True)
class BlackHole:
    """Pass on nothing any more, and end nothing, once `dark` is set."""

    dark: asyncio.Event


Fault = Cut | Shape | BlackHole
PLAIN = Shape()


class Proxy:
    """Listens on `port` and connects to `target_port`; `passed` counts the bytes by direction."""

    def __init__(self, target_port: int, *faults: Fault) -> None:
        self.port = 0
        self.passed: dict[Direction, int] = {"up": 0, "down": 0}
        self._target_port = target_port
        self._faults = deque(faults)
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault = self._faults.popleft() if self._faults else PLAIN
        task = asyncio.create_task(self._connect(reader, writer, fault))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault
    ) -> None:
        try:
            to_server = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        try:
            await _Passage(fault, self.passed, (reader, writer), to_server).run()
        finally:
            writer.transport.abort()
            to_server[1].transport.abort()


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Passage:
    """One connection through the proxy."""

    def __init__(
        self,
        fault: Fault,
        passed: dict[Direction, int],
        client: Streams,
        server: Streams,
    ) -> None:
        self._fault = fault
        self._passed = passed
        self._client = client
        self._server = server
        self._cut = False

    async def run(self) -> None:
        """Pass bytes on until both sides have ended."""
        await asyncio.gather(
            self._pass("up", self._client[0], self._server[1]),
            self._pass("down", self._server[0], self._client[1]),
        )

    async def _pass(
        self, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(ConnectionError):
            if self._due(direction, 0):
                self._end()
            while data := await reader.read(READ_BYTES):
                await self._forward(direction, data, writer)
        with suppress(ConnectionError, OSError):
            if not self._cut and not _dark(self._fault):
                writer.write_eof()

    async def _forward(
        self, direction: Direction, data: bytes, writer: asyncio.StreamWriter
    ) -> None:
        match self._fault:
            case _ if self._cut:
                return  # what comes afterwards goes nowhere
            case BlackHole() as hole:
                if hole.dark.is_set():
                    return
                await self._write(direction, data, writer)
            case Cut() as cut:
                if cut.direction == direction:
                    data = data[: cut.position - self._passed[direction]]
                await self._write(direction, data, writer)
                if self._due(direction, self._passed[direction]):
                    self._end()
            case Shape() as shape:
                if shape.delay_seconds:
                    await asyncio.sleep(shape.delay_seconds)
                for start in range(0, len(data), shape.piece_bytes):
                    piece = data[start : start + shape.piece_bytes]
                    await self._write(direction, piece, writer)
                    await asyncio.sleep(len(piece) / shape.bytes_per_second)

    def _due(self, direction: Direction, passed: int) -> bool:
        fault = self._fault
        return isinstance(fault, Cut) and fault.direction == direction and passed >= fault.position

    async def _write(self, direction: Direction, data: bytes, writer: asyncio.StreamWriter) -> None:
        self._passed[direction] += len(data)
        writer.write(data)
        await writer.drain()

    def _end(self) -> None:
        assert isinstance(self._fault, Cut)
        self._cut = True
        for _, writer in (self._client, self._server):
            if self._fault.how == "fin":
                with suppress(OSError):
                    writer.write_eof()
            else:
                reset(writer)


def _dark(fault: Fault) -> bool:
    return isinstance(fault, BlackHole) and fault.dark.is_set()


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with a RST."""
    link: socket.socket | None = writer.get_extra_info("socket")
    if link is not None and link.fileno() != -1:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def cuts(
    lengths: dict[Direction, int], step: int, hows: Sequence[Literal["fin", "rst"]] = ("fin", "rst")
) -> list[Cut]:
    """Return the cuts at every `step`th byte of both directions; the kinds are out of step."""
    return [
        Cut(direction, position, how)
        for direction, length in lengths.items()
        for offset, how in enumerate(hows)
        for position in range(offset * step // len(hows), length + 1, step)
    ]
