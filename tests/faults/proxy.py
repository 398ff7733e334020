"""The network between a server and its database, in the test's own event loop."""

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit

_PIECE_BYTES = 64 * 1024


class Network:
    """Carries connections from `port` to `target_port`, both on this machine.

    `cut` ends all connections and refuses new ones, `hang` carries nothing (what was sent
    waits), `delay_seconds` makes every piece late; `repair` undoes it all.
    """

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.delay_seconds = 0.0
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._carries = asyncio.Event()
        self._carries.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen, on the same port as before."""
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def url(self, url: str) -> str:
        """Return `url` with the way through here, and no other."""
        parts = urlsplit(url)._replace(netloc=f"127.0.0.1:{self.port}")
        return parts._replace(query="directConnection=true").geturl()

    async def cut(self) -> None:
        """Cut it."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks)

    def hang(self) -> None:
        """Carry nothing more, in either direction."""
        self._carries.clear()

    async def repair(self) -> None:
        """Carry everything again."""
        self.delay_seconds = 0.0
        self._carries.set()
        if self._server is None:
            await self.start()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
        else:
            self._writers.add(far_writer)
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
            self._writers.discard(far_writer)
        self._writers.discard(writer)
        self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(_PIECE_BYTES):
                await asyncio.sleep(self.delay_seconds)
                await self._carries.wait()
                writer.write(piece)
                await writer.drain()
        writer.close()
