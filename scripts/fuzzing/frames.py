"""WebSocket frames that are not quite right (RFC 6455 section 5.2), and HTTP requests like that."""

import base64
from random import Random
from typing import Final

from scripts.bench.framing import CLOSE, CONTINUATION, FIN, PING, PONG, TEXT

from .mutation import mutate_bytes

BINARY: Final = 0x2

HANDSHAKE: Final = (
    b"GET /ws HTTP/1.1\r\nHost: fuzz\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: queuesystem.v1\r\n\r\n"
)
REQUESTS: Final = (
    HANDSHAKE,
    HANDSHAKE.replace(b"\r\n\r\n", b"\r\nAuthorization: Bearer a.b.c\r\n\r\n"),
    HANDSHAKE.replace(b"\r\n\r\n", b"\r\nOrigin: http://fuzz\r\n\r\n"),
    HANDSHAKE.replace(b"/ws", b"/ws?token=x"),
    b"GET /livez HTTP/1.1\r\nHost: fuzz\r\n\r\n",
    b"GET /readyz HTTP/1.1\r\nHost: fuzz\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: fuzz\r\n\r\n",
    b"POST /token HTTP/1.1\r\nHost: fuzz\r\nAuthorization: Basic "
    + base64.b64encode(b"name:password")
    + b"\r\n\r\n",
    b"GET " + b"/" * 9000 + b" HTTP/1.1\r\nHost: fuzz\r\n\r\n",
    b"GET /ws HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n",
    b"PUT /ws HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    b"GET //[ HTTP/1.1\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nAuthorization: Bearer " + b"x" * 7000 + b"\r\n\r\n",
    b"GET /ws HTTP/0.9\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS to a port without
)
_CLOSE_PAYLOADS: Final = (
    b"",
    b"\x03",
    b"\x03\xe8",
    b"\x03\xe8bye",
    b"\x03\xed",  # 1005 must not be sent
    b"\x00\x00",
    b"\xff\xff",
    b"\x0f\xa0reason",
    b"\x03\xe8\xff\xfe",
    b"\x03\xe8" + b"x" * 124,
)


def http_request(random: Random) -> bytes:
    """Return a request, mostly with something wrong."""
    request = random.choice(REQUESTS)
    return request if random.random() < 0.2 else mutate_bytes(request, random)


def frame(
    opcode: int, payload: bytes, *, first: int = FIN, key: bytes = bytes(4), masked: bool = True
) -> bytes:
    """Return a frame; `first` are the other bits of its first byte."""
    size = len(payload)
    mask = 0x80 if masked else 0
    if size <= 125:
        head = bytes((first | opcode, mask | size))
    elif size <= 0xFFFF:
        head = bytes((first | opcode, mask | 126)) + size.to_bytes(2)
    else:
        head = bytes((first | opcode, mask | 127)) + size.to_bytes(8)
    if not masked:
        return head + payload
    if any(key):
        payload = bytes(byte ^ key[at & 3] for at, byte in enumerate(payload))
    return head + key + payload


def good_frames(message: bytes, random: Random) -> bytes:
    """Return frames that carry `message` as they may: at once or in parts, with pings between."""
    key = random.randbytes(4) if random.random() < 0.3 else bytes(4)
    if random.random() < 0.7:
        return frame(TEXT, message, key=key)
    out = bytearray()
    opcode = TEXT
    at = 0
    while len(message) - at > 1 and random.random() < 0.7:
        cut = random.randrange(at, len(message))
        out += frame(opcode, message[at:cut], first=0, key=key)
        if random.random() < 0.3:
            out += frame(random.choice((PING, PONG)), random.randbytes(random.randrange(126)))
        opcode = CONTINUATION
        at = cut
    return bytes(out + frame(opcode, message[at:], key=key))


def bad_frames(message: bytes, random: Random) -> bytes:
    """Return frames as they must not be; most of them make the server close the connection."""
    whole = frame(TEXT, message)
    match random.randrange(11):
        case 0:
            return frame(TEXT, message, masked=False)
        case 1:
            return frame(TEXT, message, first=FIN | random.choice((0x40, 0x20, 0x10, 0x70)))
        case 2:
            return frame(random.choice((3, 4, 5, 6, 7, 11, 12, 13, 14, 15)), message)
        case 3:
            return frame(CONTINUATION, message)
        case 4:
            return frame(TEXT, message, first=0) + whole
        case 5:
            return frame(random.choice((PING, PONG, CLOSE)), bytes(random.choice((126, 200))))
        case 6:
            return frame(random.choice((PING, CLOSE)), b"x", first=0)
        case 7:
            return frame(CLOSE, random.choice(_CLOSE_PAYLOADS)) + whole
        case 8:
            size = random.choice((2**16, 2**20, 2**31, 2**63 - 1, 2**63, 2**64 - 1))
            return bytes((FIN | TEXT, 0xFF)) + size.to_bytes(8) + bytes(4) + message
        case 9:
            head = bytearray(whole[:14])
            head[random.randrange(len(head))] ^= 1 << random.randrange(8)
            return bytes(head) + whole[14:]
        case _:
            return mutate_bytes(whole, random)
