"""The benchmark's WebSocket client: messages come whole, however the network cuts them."""

import asyncio

import pytest

from scripts.bench.websocket import ConnectionFailed, RawClient, text_frame

RESPONSE = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
MESSAGES = [b"a", b"b" * 125, b"c" * 126, b"d" * 70_000, b"", b"e"]


def unmasked(payload: bytes) -> bytes:
    """Return a text message as a server sends it."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 2**16:
        return b"\x81\x7e" + size.to_bytes(2) + payload
    return b"\x81\x7f" + size.to_bytes(8) + payload


def received(pieces: list[bytes]) -> list[bytes]:
    """Return the messages that a client takes out of what came, in these pieces."""

    async def feed() -> list[bytes]:
        messages: list[bytes] = []
        client = RawClient("/", None, messages.extend)
        for piece in pieces:
            client.data_received(piece)
        assert client.opened.done()
        return messages

    return asyncio.run(feed())


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000, 10**6])
def test_messages_come_whole(size: int) -> None:
    stream = RESPONSE + b"".join(map(unmasked, MESSAGES))
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert received(pieces) == MESSAGES


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_text_frames_are_masked_with_zero(size: int) -> None:
    """The payload is sent as it is, after a head that RFC 6455 takes for masked."""
    frame = text_frame(b"x" * size)
    assert frame[0] == 0x81
    assert frame[1] & 0x80
    assert frame.endswith(b"\0\0\0\0" + b"x" * size)


async def test_a_refused_handshake_is_told() -> None:
    client = RawClient("/", None, lambda messages: None)
    client.data_received(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
    with pytest.raises(ConnectionFailed, match="503"):
        await client.opened
