"""What the request log needs of a commit: the same bytes as entries.py, less of what they say.

Every commit is read for the request log, so params, results and snapshots are not decoded at all;
that takes half of the time. A test holds these types to the ones they are outlines of.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, Union, get_args

import msgspec
from msgspec import Meta, Struct, defstruct

from protocol import frames as wire
from protocol.codec import decode_client_message
from server.journal.entries import Accepted, Entry, Finished, Opened, Started, decode_entries


class EndOutline(Struct, array_like=True, gc=False):
    """An entries.End whose results and error are not looked at."""

    n: int
    attempt: int
    results: int
    outcome: str
    started: float
    time: float


class FinishedOutline(Struct, tag=6, array_like=True, gc=False):
    """An entries.Finished."""

    session: str
    ends: list[EndOutline]


class RequestOutline(Struct, tag="request", gc=False):
    """A protocol.frames.Request without its params; it refuses whatever that one refuses."""

    id: wire.RequestId
    method: Annotated[str, Meta(min_length=1, max_length=128)]
    timeout: wire.TimeoutSeconds | None = None
    on_disconnect: Literal["continue", "cancel"] = "continue"


Outline = Opened | Accepted | Started | FinishedOutline
"""What says something of requests."""
OUTLINES: Final = frozenset(get_args(Outline))

_SKIPPED: Final = tuple(
    defstruct(kind.__name__, [], tag=kind.__struct_config__.tag, array_like=True, gc=False)
    for kind in get_args(Entry)
    if kind not in {Opened, Accepted, Started, Finished}
)
_entries: Final = msgspec.msgpack.Decoder[list[Any]](list[Union[(Outline, *_SKIPPED)]])
_frames: Final = msgspec.json.Decoder(RequestOutline | wire.Ack)


def decode_outline(data: bytes) -> list[Outline]:
    """Return what a commit says of requests. Raises Damaged when it is not one."""
    return [entry for entry in decode_entries(_entries, data) if type(entry) in OUTLINES]


def decode_requests(frames: str) -> Sequence[RequestOutline | wire.Ack]:
    """Return the requests among the frames of an Accepted entry; acks may be between them."""
    try:
        return _frames.decode_lines(frames)
    except msgspec.DecodeError:
        return [
            RequestOutline(frame.id, frame.method)
            for frame in decode_client_message(frames)  # knows all frames
            if isinstance(frame, wire.Request)
        ]
