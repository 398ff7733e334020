"""Text messages to frames and back. One message carries one or more frames, joined by newlines."""

import re
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw

from protocol.frames import ClientFrame, ServerFrame

_Frame = TypeVar("_Frame")

BAD_FRAMES_MAX: Final = 64
"""So many bad frames of a message are told of: one costs more than it costs to send. What is behind
them in a client's message is not read."""

_ID_LENGTH_MAX: Final = 1024
_LINE: Final = re.compile(rb"[^ \t\r\n][^\n]*")
_PROBLEM_LENGTH_MAX: Final = 512
"""What is wrong with a frame may quote from it: not without end."""
_UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_encoder = msgspec.json.Encoder()
_client_decoder = msgspec.json.Decoder(ClientFrame)
_server_decoder = msgspec.json.Decoder(ServerFrame)


class FrameError(ValueError):
    """A frame that cannot be taken; the text names the field and what was expected.

    `id` is the request id of the refused frame where one could still be read from it.
    """

    def __init__(self, message: str, request_id: str | None = None) -> None:
        super().__init__(message)
        self.id = request_id


class TooManyBadFrames(FrameError):
    """Stands for the rest of a message in which BAD_FRAMES_MAX frames were bad."""


class _Id(msgspec.Struct):
    id: str


def encode(value: Any) -> bytes:
    """Encode a frame, or any JSON value, as one line of UTF-8 JSON.

    Raises TypeError or ValueError for what JSON cannot hold.
    """
    return _encoder.encode(value)


def encode_message(frames: Sequence[ServerFrame | Raw]) -> bytes:
    """Encode `frames` as one message, empty when there are none; a Raw holds encoded ones."""
    return _encoder.encode_lines(frames)[:-1]


def decode_client_message(message: str | bytes) -> Sequence[ClientFrame | FrameError]:
    """Decode what a client sent, in order; a bad frame does not hide the good ones beside it.

    There is at least one frame. The last one is TooManyBadFrames when not all was read.
    """
    try:
        return _client_decoder.decode_lines(message) or [_empty_message()]
    except _UNDECODABLE:
        return _decode_until_too_bad(message)


def _decode_until_too_bad(message: str | bytes) -> Sequence[ClientFrame | FrameError]:
    frames: list[ClientFrame | FrameError] = []
    bad = 0
    for line in _lines(message):
        if bad == BAD_FRAMES_MAX:
            frames.append(TooManyBadFrames("too many bad frames: the rest was not read"))
            break
        frames.append(frame := _decode_line(_client_decoder, line))
        bad += isinstance(frame, FrameError)
    return frames


def decode_server_message(message: str | bytes) -> Sequence[ServerFrame | FrameError]:
    """Decode what a server sent, in order; a frame of a newer server comes back as FrameError.

    After BAD_FRAMES_MAX of these further ones are left out, not the frames between them.
    """
    try:
        return _server_decoder.decode_lines(message)
    except _UNDECODABLE:
        frames = (_decode_line(_server_decoder, line) for line in _lines(message))
        bad = count()
        return [
            frame
            for frame in frames
            if not isinstance(frame, FrameError) or next(bad) < BAD_FRAMES_MAX
        ]


def _lines(message: str | bytes) -> Iterator[bytes]:
    """Return the lines that are not empty, without what JSON calls whitespace before them."""
    data = message.encode() if isinstance(message, str) else message
    return (match.group() for match in _LINE.finditer(data))


def _empty_message() -> FrameError:
    return FrameError("the message holds no frame")


def _decode_line(decoder: "msgspec.json.Decoder[_Frame]", line: bytes) -> "_Frame | FrameError":
    try:
        return decoder.decode(line)
    except _UNDECODABLE as error:
        return FrameError(shorten(str(error)), _request_id(line))


def shorten(problem: str) -> str:
    """Return `problem`, which may quote what was sent, in a length that can be sent back."""
    if len(problem) <= _PROBLEM_LENGTH_MAX:
        return problem
    half = _PROBLEM_LENGTH_MAX // 2
    return f"{problem[:half]} ... {problem[-half:]}"


def _request_id(line: bytes) -> str | None:
    try:
        request_id = msgspec.json.decode(line, type=_Id).id
    except _UNDECODABLE:
        return None
    return request_id if len(request_id) <= _ID_LENGTH_MAX else None
