"""The hostile connections. The number of a peer and the seed decide all that it does.

    Crowd.run: so many peers at a time, until enough messages were sent

A message is what a peer writes at once: a WebSocket message or frame, an HTTP request, or bytes
that are nothing of the kind.
"""

import asyncio
import re
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Final, cast

from .dialogue import Dialogue, Tokens
from .frames import HANDSHAKE, TEXT, bad_frames, frame, good_frames, http_request

KINDS: Final = {"garbage": 2, "http": 6, "early": 4, "frames": 18, "session": 40, "silent": 1}
"""What peers do, and how often."""
SESSION_MESSAGES_MAX: Final = 400
READ_SECONDS: Final = 2.0
"""A peer waits for so long for what it needs, and for room to write."""
SESSIONS_KNOWN: Final = 64
PAUSE_BYTES: Final = 64 * 1024

_WELCOME: Final = re.compile(rb'"session":"([^"]+)"')
_SEQ: Final = b'"seq":'
_CLOSE: Final = b"\x88"
"""How a close frame begins (in text this byte is rare)."""


class Gone(Exception):
    """The server has closed the connection, or does not take what is sent."""


class Peer(asyncio.Protocol):
    """One connection, without any idea of what is right."""

    def __init__(self, reads: bool) -> None:
        self.seq = 0
        self.received = b""
        self.gone = False
        self.closed = False
        self._reads = reads
        self._changed = asyncio.Event()
        self._transport: asyncio.Transport
        self._full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(PAUSE_BYTES)

    def data_received(self, data: bytes) -> None:
        self.received = (self.received + data)[-4096:] if len(data) < 4096 else data
        self.closed = self.closed or _CLOSE in data
        at = data.rfind(_SEQ)
        if at >= 0:
            digits = data[at + len(_SEQ) : at + len(_SEQ) + 9]
            number = re.match(rb"\d+", digits)
            self.seq = int(number[0]) if number else self.seq
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self._changed.set()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that came makes `condition` true. Raises Gone."""
        try:
            async with asyncio.timeout(READ_SECONDS):
                while not condition():
                    if self.gone or self.closed:
                        raise Gone
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise Gone from None

    async def send(self, data: bytes) -> None:
        """Write `data`, wait for room. Raises Gone."""
        if self.gone or self._transport.is_closing():
            raise Gone
        self._transport.write(data)
        if self._full:
            await self.until(lambda: not self._full)

    def read_no_more(self) -> None:
        """Let what the server sends pile up, if this is that kind of peer."""
        if not self._reads and not self.gone:
            self._transport.pause_reading()

    def leave(self, random: Random) -> None:
        """Close, half-close or cut the connection."""
        if self.gone:
            return
        if random.random() < 0.3:
            endpoint = self._transport.get_extra_info("socket")
            linger = struct.pack("ii", 1, 0)  # RST instead of FIN
            endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._transport.abort()
        else:
            self._transport.close()


class Crowd:
    """All hostile peers. `sent` counts messages, `kinds` peers by what they did."""

    def __init__(self, port: int, seed: str, tokens: Sequence[Tokens]) -> None:
        self.sent = 0
        self.started = 0
        self.alive: set[str] = set()
        self.kinds: Counter[str] = Counter()
        self._port = port
        self._seed = seed
        self._tokens = tokens
        self._sessions: deque[str] = deque(maxlen=SESSIONS_KNOWN)

    async def run(self, messages: int, at_a_time: int) -> None:
        """Send at least so many messages."""
        async with asyncio.TaskGroup() as group:
            for _ in range(at_a_time):
                group.create_task(self._peers(messages))

    async def _peers(self, messages: int) -> None:
        while self.sent < messages:
            number = self.started
            self.started += 1
            await self.one(number, messages)

    async def one(self, number: int, messages: int) -> None:
        """Be the peer of that number, until `messages` were sent by all."""
        random = Random(f"{self._seed}/{number}")
        (kind,) = random.choices(list(KINDS), list(KINDS.values()))
        self.kinds[kind] += 1
        peer = Peer(reads=random.random() < 0.9)
        name = f"{number} {kind}"
        self.alive.add(name)
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: peer, "127.0.0.1", self._port
            )
            await self._act(kind, peer, random, messages)
        except (Gone, OSError):
            pass
        finally:
            if hasattr(peer, "_transport"):
                peer.leave(random)
            self.alive.discard(name)

    async def _act(self, kind: str, peer: Peer, random: Random, messages: int) -> None:
        match kind:
            case "garbage":
                for _ in range(random.randrange(1, 20)):
                    await self._send(peer, random.randbytes(random.randrange(1, 300)))
            case "http":
                await self._send(peer, http_request(random))
                await peer.until(lambda: bool(peer.received))
            case "early":
                early = frame(TEXT, b"{}") if random.random() < 0.5 else bad_frames(b"x", random)
                await self._send(peer, HANDSHAKE + early)
                await peer.until(lambda: bool(peer.received))
            case "silent":
                await self._open(peer)
                peer.read_no_more()
                await peer.until(lambda: False)
            case _:
                await self._open(peer)
                dialogue = Dialogue(
                    random, random.choice(self._tokens), random.choice((0, 0.02, 0.1, 0.5))
                )
                if kind == "session" or random.random() < 0.5:
                    await self._greet(peer, dialogue)
                peer.read_no_more()
                for data in _messages(kind, dialogue):
                    if self.sent >= messages or (peer.closed and random.random() < 0.3):
                        return
                    dialogue.seq = peer.seq
                    await self._send(peer, data)
                    if random.random() < 0.1:
                        await asyncio.sleep(0)  # the others' turn

    async def _open(self, peer: Peer) -> None:
        await peer.send(HANDSHAKE)
        await peer.until(lambda: b"\r\n\r\n" in peer.received)
        peer.received = b""

    async def _greet(self, peer: Peer, dialogue: Dialogue) -> None:
        random = dialogue.random
        resume = random.choice(self._sessions) if self._sessions and random.random() < 0.4 else None
        await self._send(peer, frame(TEXT, dialogue.hello(resume).encode(errors="replace")))
        if random.random() < 0.9:
            await peer.until(lambda: _WELCOME.search(peer.received) is not None)
        if welcome := _WELCOME.search(peer.received):
            self._sessions.append(welcome[1].decode())

    async def _send(self, peer: Peer, data: bytes) -> None:
        self.sent += 1
        await peer.send(data)


def _messages(kind: str, dialogue: Dialogue) -> Iterator[bytes]:
    random = dialogue.random
    if kind == "session":
        for _ in range(random.randrange(SESSION_MESSAGES_MAX)):
            message = dialogue.message()
            yield frame(TEXT, message) if random.random() < 0.8 else good_frames(message, random)
    else:
        for _ in range(random.randrange(12)):
            yield good_frames(dialogue.message(), random)
        for _ in range(3):
            data = bad_frames(dialogue.message(), random)
            cut = random.randrange(len(data) + 1)
            yield data[:cut]
            yield data[cut:]
