"""What happened in a run, as those who saw it wrote it down: events, their writing and reading.

A history is a directory of `*.jsonl` files, one per process that writes. A line is one event: `ev`
says what it is, `t` is CLOCK_MONOTONIC in seconds, which all processes of a machine share. A line
is one write, so it survives SIGKILL; the last one of a file may be torn and is then passed over.
"""

import heapq
import os
import threading
import time
from bisect import insort
from collections import deque
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from msgspec import UNSET, DecodeError, Struct, UnsetType
from msgspec.json import Decoder, Encoder

DATA_BYTES_MAX: Final = 128
"""Values whose JSON is longer are kept as their hash."""

SWAPPED_MAX: Final = 32
"""An event may stand so many lines behind its place in the order of time."""

Frame = dict[str, Any]
"""A frame as on the wire, without `hello.token`; large `params` and `data` are `shortened`."""


class HistoryError(Exception):
    """The history itself is wrong: whoever wrote it is to be corrected, not the server."""


class _Event(Struct, tag_field="ev", kw_only=True, gc=False):
    t: float


class Connect(_Event, tag="connect"):
    """A handshake is done. `server` names the server process, "" when that is not known."""

    client: str
    conn: int
    server: str = ""


class Send(_Event, tag="send"):
    """The client is about to write `frame`; a text when it is not a JSON object."""

    client: str
    conn: int
    frame: Frame | str


class Recv(_Event, tag="recv"):
    """The client has read `frame`."""

    client: str
    conn: int
    frame: Frame


class Disconnect(_Event, tag="disconnect"):
    """The connection is over; `code` is the WebSocket close code, if there was one."""

    client: str
    conn: int
    code: int | None = None


class Start(_Event, tag="start"):
    """A handler begins. `params` (shortened), `live` and `replay` are the method's, if known."""

    server: str
    pid: int
    session: str
    n: int
    id: str
    attempt: int
    method: str
    params: Any | UnsetType = UNSET
    live: bool = False
    replay: str = "always"


class Emit(_Event, tag="emit"):
    """A handler is about to yield or return its item number `index`."""

    server: str
    pid: int
    session: str
    n: int
    attempt: int
    index: int
    data: Any


class End(_Event, tag="end"):
    """A handler is over; `how` is returned, raised or cancelled."""

    server: str
    pid: int
    session: str
    n: int
    attempt: int
    how: str


class Up(_Event, tag="up"):
    """The driver has started a server process."""

    server: str
    pid: int
    journal: str


class Kill(_Event, tag="kill"):
    """SIGKILL comes next."""

    server: str


class Stop(_Event, tag="stop"):
    """SIGTERM comes next."""

    server: str


class Pause(_Event, tag="pause"):
    """SIGSTOP comes next."""

    server: str


class Continue(_Event, tag="continue"):
    """SIGCONT comes next."""

    server: str


class Down(_Event, tag="down"):
    """The process is gone; `code` is its exit code, negative for a signal."""

    server: str
    code: int | None = None


class DatabaseKill(_Event, tag="database_kill"):
    """SIGKILL of the database comes next."""


class DatabaseUp(_Event, tag="database_up"):
    """The database is there again."""


class OperatorCancel(_Event, tag="operator_cancel"):
    """An operator asks for the end of a request next."""

    session: str
    n: int


class OperatorClose(_Event, tag="operator_close"):
    """An operator asks for the end of a session next, and with `cancel` of what it has left."""

    session: str
    cancel: bool = False


class OperatorRetry(_Event, tag="operator_retry"):
    """An operator has had a request run once more, in a `session` that is no client's."""

    session: str


class DurableSession(Struct, gc=False):
    """What the journal says of one session; `live` has n, id, attempt and outcome of requests."""

    last_n: int
    closed: bool
    live: list[tuple[int, str, int, str | None]]


class Durable(_Event, tag="durable"):
    """What the journal says while no server runs on it; sessions that are over are absent.

    `servers` tells whose logs were read, by the name of the process or by its epoch.
    """

    sessions: dict[str, DurableSession]
    servers: list[str] = []


class Quiet(_Event, tag="quiet"):
    """Every client has seen, and acknowledged, the end of everything it sent."""


Event = (
    Connect
    | Send
    | Recv
    | Disconnect
    | Start
    | Emit
    | End
    | Up
    | Kill
    | Stop
    | Pause
    | Continue
    | Down
    | DatabaseKill
    | DatabaseUp
    | OperatorCancel
    | OperatorClose
    | OperatorRetry
    | Durable
    | Quiet
)

_encoder: Final = Encoder()
_sorted_encoder: Final = Encoder(order="sorted")
_decoder: Final = Decoder(Event)


def shortened(value: Any) -> Any:
    """Return `value`, or `{"sha": ...}` in its place when its JSON is long."""
    if isinstance(value, int | float | None):
        return value
    text = _sorted_encoder.encode(value)
    return value if len(text) <= DATA_BYTES_MAX else {"sha": sha256(text).hexdigest()[:32]}


def shortened_frame(frame: Frame) -> Frame:
    """Return `frame` as a history keeps it: no token, long `params` and `data` as their hash."""
    kept = {name: value for name, value in frame.items() if name != "token"}
    for name in ("params", "data"):
        if name in kept:
            kept[name] = shortened(kept[name])
    return kept


class Writer:
    """One file of a history, for all threads of this process; a forked child gets its own."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._name = name
        self._lock = threading.Lock()
        self._open()

    def _open(self) -> None:
        self._pid = os.getpid()
        path = self._directory / f"{self._name}-{self._pid}.jsonl"
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def write(self, ev: str, **fields: Any) -> None:
        """Append the event `ev` with these fields, at the time of now."""
        with self._lock:  # so that the lines are in the order of their times
            if os.getpid() != self._pid:
                self._open()
            line = _encoder.encode({"t": time.monotonic(), "ev": ev, **fields})
            os.write(self._file, line + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


def read(directory: Path) -> Iterator[Event]:
    """Yield the events of all files in order of time. Raises HistoryError."""
    files = sorted(directory.glob("*.jsonl"))
    if not files:
        raise HistoryError(f"no *.jsonl files in {directory}")
    return heapq.merge(*map(_read_file, files), key=_time)


def _time(event: Event) -> float:
    return event.t


def _read_file(path: Path) -> Iterator[Event]:
    # Threads that write without a common lock may swap neighbours.
    waiting: deque[Event] = deque()
    given = 0.0
    number = 0
    with path.open("rb") as file:
        for line in file:
            number += 1
            if not line.endswith(b"\n"):
                break  # torn: its writer was killed while it wrote
            try:
                event = _decoder.decode(line)
            except DecodeError as error:
                raise HistoryError(f"{path}:{number}: {error}") from None
            t = event.t
            if waiting and t < waiting[-1].t:
                if t < given:
                    raise HistoryError(f"{path}:{number}: much earlier than the lines before")
                insort(waiting, event, key=_time)
            else:
                waiting.append(event)
            if len(waiting) > SWAPPED_MAX:
                event = waiting.popleft()
                given = event.t
                yield event
    yield from waiting


def line_of(event: Event) -> str:
    """Return `event` as the line it is in a file."""
    return _encoder.encode(event).decode()
