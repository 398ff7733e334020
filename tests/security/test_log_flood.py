"""However many bad clients come, the log stays small, and says exactly how many there were."""

import asyncio
import json
from collections import Counter

import pytest
from websockets.frames import Frame, Opcode

from tests.server_process import ServerProcess

CLIENTS = 2000
AT_ONCE = 100
LOG_BYTES_MAX = 100_000
"""Without a limit it would be four times as much, and grow with every client."""

_HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
)
_HOST = b"Host: x\r\n"


def _only(data: bytes) -> bytes:
    """Return what says `data` and goodbye."""
    close = Frame(Opcode.CLOSE, b"").serialize(mask=True)
    return Frame(Opcode.TEXT, data).serialize(mask=True) + close


BAD_CLIENTS = [
    # What it sends as its handshake and then, the event and what it was answered.
    (_HANDSHAKE + b"\r\n", b"", "http_refused", 400),
    (_HANDSHAKE + _HOST + b"Authorization: Bearer a.b.c\r\n\r\n", b"", "http_refused", 401),
    (_HANDSHAKE + _HOST + b"\r\n", _only(b'{"type":"nonsense"}'), "refused", 4500),
    (_HANDSHAKE + _HOST + b"\r\n", _only(b'{"type":"hello","token":"x"}'), "refused", 4501),
]


async def _come_and_go(port: int, handshake: bytes, frame: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(handshake)
    if frame:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(frame)
    await reader.read()
    writer.close()


async def flood(port: int, clients: int) -> None:
    """Let so many bad clients come, of each kind as many, AT_ONCE at a time."""
    numbers = iter(range(clients))

    async def some() -> None:
        for number in numbers:
            handshake, frame, *_ = BAD_CLIENTS[number % len(BAD_CLIENTS)]
            await _come_and_go(port, handshake, frame)

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))


async def test_a_flood_of_bad_clients_is_counted_and_not_written_down(
    own_server: ServerProcess, request: pytest.FixtureRequest
) -> None:
    clients = request.config.getoption("--bad-clients", None) or CLIENTS
    await own_server.astart()
    await flood(own_server.port, clients)
    await asyncio.to_thread(own_server.terminate)
    assert own_server.log.stat().st_size < LOG_BYTES_MAX
    counts: Counter[tuple[str, int]] = Counter()
    for line in map(json.loads, own_server.log.read_text().splitlines()):
        if line["event"] == "suppressed":
            counts[line["of"], line["detail"]] += line["count"]
        elif line["event"] in {"refused", "http_refused"}:
            counts[line["event"], line.get("code") or line["status"]] += 1
    each = clients // len(BAD_CLIENTS)
    assert counts == {(event, code): each for _, _, event, code in BAD_CLIENTS}
