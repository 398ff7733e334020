"""What is sent, and what has to come back: encoded once, and the same on every connection."""

from typing import Final, Protocol

from msgspec import Raw

from protocol import frames as wire
from protocol.codec import encode

from .websocket import text_frame

FIRST_ID: Final = 1_000_000
"""Ids are unique in a session only, so that all connections send the same bytes."""


class Messages(Protocol):
    """Messages for a server that sends back what it gets; `wires` are they as they go out."""

    frames: list[bytes]
    wires: list[bytes]

    def grow(self, count: int) -> None:
        """Have at least `count` of them."""
        ...


class Requests(Protocol):
    """Requests with `results` results each; result r of a connection has `data[r]`."""

    ids: list[str]
    frames: list[bytes]
    data: list[bytes]
    results: int

    def grow(self, count: int) -> None:
        """Have at least `count` of them."""
        ...


class EchoRequests:
    """Small `echo` requests, each with a text of its own; as Messages too."""

    results = 1

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.frames: list[bytes] = []
        self.wires: list[bytes] = []
        self.data: list[bytes] = []

    def grow(self, count: int) -> None:
        for k in range(len(self.ids), count):
            request_id = str(FIRST_ID + k)
            data = encode(f"{request_id} to be or not to be")
            frame = _frame(request_id, b"echo", data)
            self.ids.append(request_id)
            self.frames.append(frame)
            self.wires.append(text_frame(frame))
            self.data.append(data)


class LargeRequests:
    """`echo` requests with one text of `size` bytes."""

    results = 1

    def __init__(self, size: int) -> None:
        self.ids: list[str] = []
        self.frames: list[bytes] = []
        self.data: list[bytes] = []
        self._text = encode("to be or not to be, ".ljust(size, "x"))

    def grow(self, count: int) -> None:
        for k in range(len(self.ids), count):
            request_id = str(FIRST_ID + k)
            self.ids.append(request_id)
            self.frames.append(_frame(request_id, b"echo", self._text))
            self.data.append(self._text)


class LargeMessages:
    """The same requests as Messages: the first few of them again and again, to save memory."""

    DIFFERENT: Final = 16

    def __init__(self, size: int) -> None:
        self.frames: list[bytes] = []
        self.wires: list[bytes] = []
        large = LargeRequests(size)
        large.grow(self.DIFFERENT)
        self._frames = large.frames
        self._wires = [text_frame(frame) for frame in large.frames]

    def grow(self, count: int) -> None:
        while len(self.frames) < count:
            self.frames += self._frames
            self.wires += self._wires


class StreamRequests:
    """`words` requests: each answers with the `results` words of one text."""

    def __init__(self, results: int) -> None:
        self.results = results
        self.ids: list[str] = []
        self.frames: list[bytes] = []
        self.data: list[bytes] = []
        words = [f"word-{index}" for index in range(results)]
        self._text = encode(" ".join(words))
        self._words = [encode(word) for word in words]

    def grow(self, count: int) -> None:
        for k in range(len(self.ids), count):
            request_id = str(FIRST_ID + k)
            self.ids.append(request_id)
            self.frames.append(_frame(request_id, b"words", self._text))
            self.data.extend(self._words)


class ResultMessages:
    """Messages that look like the results of StreamRequests."""

    def __init__(self, results: int) -> None:
        self.frames: list[bytes] = []
        self.wires: list[bytes] = []
        self._results = results
        self._words = StreamRequests(results)
        self._words.grow(1)

    def grow(self, count: int) -> None:
        for r in range(len(self.frames), count):
            k, index = divmod(r, self._results)
            data = Raw(self._words.data[index])
            frame = encode(wire.Result(str(FIRST_ID + k), 1, index, data, r + 1))
            self.frames.append(frame)
            self.wires.append(text_frame(frame))


def _frame(request_id: str, method: bytes, text: bytes) -> bytes:
    return b'{"type":"request","id":"%b","method":"%b","params":{"text":%b}}' % (
        request_id.encode(),
        method,
        text,
    )
