"""What the log says: the entries a commit is made of, and a commit's bytes.

A commit is one MessagePack array of entries, encoded in one call, and a CRC-32 of that (4 bytes,
big-endian): stores and disks change bits without a word. Requests are the very text of the
wire and results the JSON they are sent as, so that nothing is encoded twice. Times are Unix times
in seconds.
"""

import zlib
from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeVar

import msgspec
from msgspec import Struct

from server.journal.log import Damaged

DONE: Final = "done"
"""The outcome of a request that ended well; every other outcome is an error code."""


class Opened(Struct, tag=1, array_like=True):
    """A new session of `subject`, whose token carries `scope` (space separated)."""

    session: str
    subject: str
    scope: str
    time: float


class Authorized(Struct, tag=2, array_like=True):
    """From here on requests of this session are accepted under another scope."""

    session: str
    scope: str


class Accepted(Struct, tag=3, array_like=True, gc=False):
    """Requests `n`, `n` + 1, ... will run, in this order.

    `frames` is text as on the wire: every `request` frame in it is one of them, whatever else is
    in it says nothing. When a message is all requests and acks, it is that message as it came.
    """

    session: str
    n: int
    subject: str
    time: float
    frames: str


class Started(Struct, tag=4, array_like=True, gc=False):
    """The handler runs for the `attempt`-th time; `time` is when it began.

    Only said of what was still running when its commit was made, or when it must be durable
    before the handler runs; `End` says it of the others.
    """

    session: str
    n: int
    attempt: int
    time: float


class Results(Struct, tag=5, array_like=True):
    """A piece of a long stream: items from index `first` on, JSON text each."""

    session: str
    n: int
    first: int
    items: list[bytes]


class End(Struct, array_like=True, gc=False):
    """How request `n` ended: `items` is what no piece has said yet, `results` counts all it gave.

    `outcome` is DONE or an error code; `error` is then the JSON object with code, message,
    retryable and details that the client gets. `started` is 0 for one that never ran. What the
    request log does not look at comes last, where a reader passes over it for nothing.
    """

    n: int
    attempt: int
    results: int
    outcome: str
    started: float
    time: float
    first: int
    items: list[bytes]
    error: bytes


class Finished(Struct, tag=6, array_like=True):
    """Requests of a session ended, in this order."""

    session: str
    ends: list[End]


class Acked(Struct, tag=7, array_like=True):
    """The client has the ends of the requests `ended`, and of request `n` the first `results`."""

    session: str
    ended: list[int]
    n: int
    results: int


class Closed(Struct, tag=8, array_like=True, gc=False):
    """Nobody will come back: what was accepted still runs, results are not kept."""

    session: str


class RequestSnapshot(Struct, array_like=True):
    """A live request inside a snapshot; the fields of `state.RequestState`."""

    n: int
    id: str
    method: str
    params: bytes
    digest: int
    scope: str
    time: float
    timeout: float | None
    cancel_on_disconnect: bool
    attempt: int
    dropped: int
    results: list[bytes]
    total: int
    outcome: str | None
    error: bytes


class Snapshot(Struct, tag=9, array_like=True):
    """All of one session: written by checkpoints, and by an owner that takes a session over."""

    session: str
    subject: str
    scope: str
    last_n: int
    closed: bool
    requests: list[RequestSnapshot]
    recent: dict[str, int]
    older: dict[str, int]


class Claimed(Struct, tag=10, array_like=True, gc=False):
    """Every live session of `owner`'s sealed log has its snapshot in this log by now."""

    owner: str


class Stopped(Struct, tag=11, array_like=True, gc=False):
    """The owner stopped in good order: every start that happened is in the log."""


SessionEntry = Opened | Authorized | Accepted | Started | Results | Finished | Acked | Closed
Entry = SessionEntry | Snapshot | Claimed | Stopped


class Source(Protocol):
    """Somebody with entries for the log; what it has is bounded by its own rules."""

    def cut(self) -> Sequence[Entry]:
        """Return the entries made since the last cut."""
        ...

    def committed(self) -> None:
        """Take note that those of the last cut are durable."""
        ...


_CHECKSUM_BYTES: Final = 4
_Entries = TypeVar("_Entries")

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(list[Entry])


def encode_commit(entries: Sequence[Entry]) -> bytes:
    """Return the bytes of one commit."""
    data = _encoder.encode(entries)
    return data + zlib.crc32(data).to_bytes(_CHECKSUM_BYTES)


def decode_commit(data: bytes) -> list[Entry]:
    """Return the entries of one commit. Raises Damaged when it is not one."""
    return decode_entries(_decoder, data)


def decode_entries(decoder: "msgspec.msgpack.Decoder[_Entries]", data: bytes) -> _Entries:
    """Return what `decoder` makes of a commit. Raises Damaged when it is not one."""
    body = memoryview(data)[:-_CHECKSUM_BYTES]
    if zlib.crc32(body) != int.from_bytes(data[-_CHECKSUM_BYTES:]):
        raise Damaged("a commit is damaged: its checksum is wrong")
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Damaged(f"a commit is damaged, or of another version: {error}") from error


def encode_error(code: str, message: str, retryable: bool, details: Any = None) -> bytes:
    """Return the `error` text of a Finished entry. Raises TypeError if details are not JSON."""
    body: dict[str, Any] = {"code": code, "message": message, "retryable": retryable}
    if details is not None:
        body["details"] = details
    return msgspec.json.encode(body)
