"""WebSocket frames by hand, RFC 6455 section 5.2, as cheaply as Python can.

    frame(TEXT, payload) -> what a client sends      split(data, 0) -> what a server sent

Masked with a key of zero (section 5.3): legal on the wire, and masking is free.
"""

from typing import Final

FIN: Final = 0x80
CONTINUATION: Final = 0x0
TEXT: Final = 0x1
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

LONG_HEAD_BYTES: Final = 10
"""The head of a server's frame whose payload is 64 KiB or more."""

_MASKED: Final = 0x80
_NO_MASK: Final = b"\0\0\0\0"
_ONE_BYTE_MAX: Final = 125
_TWO_BYTES_MAX: Final = 0xFFFF
_TWO_BYTES: Final = 126
_EIGHT_BYTES: Final = 127


def frame(opcode: int, payload: bytes) -> bytes:
    """Return a whole message, or a control frame, as a client sends it."""
    size = len(payload)
    if size <= _ONE_BYTE_MAX:
        head = bytes((FIN | opcode, _MASKED | size))
    elif size <= _TWO_BYTES_MAX:
        head = bytes((FIN | opcode, _MASKED | _TWO_BYTES)) + size.to_bytes(2)
    else:
        head = bytes((FIN | opcode, _MASKED | _EIGHT_BYTES)) + size.to_bytes(8)
    return head + _NO_MASK + payload


def split(data: bytes, position: int) -> tuple[list[tuple[int, bytes]], int, int]:
    """Return the whole frames of a server from `position` on, each its first byte and payload.

    Then where the first begins that is not whole, and how many bytes that has in all (0: not
    known yet).
    """
    frames: list[tuple[int, bytes]] = []
    end = len(data)
    while end - position >= 2:  # the shortest head there is
        size = data[position + 1]
        start = position + 2
        if size == _TWO_BYTES:
            start += 2
            size = int.from_bytes(data[position + 2 : start])
        elif size == _EIGHT_BYTES:
            start += 8
            size = int.from_bytes(data[position + 2 : start])
        stop = start + size
        if stop > end:
            return frames, position, stop - position if start <= end else 0
        frames.append((data[position], data[start:stop]))
        position = stop
    return frames, position, 0
