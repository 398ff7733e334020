"""A bench for the session rules: a log, an outbox and a worker made of plain lists."""

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Raw

from protocol import frames as wire
from protocol.codes import ErrorCode
from server.journal.entries import Entry
from server.journal.state import RequestState, SessionState, State, fold
from server.session import Limits, Memory, Rules, Session

_decoder = msgspec.json.Decoder(wire.ServerFrame)


class ListJournal:
    """A log in memory whose entries become durable when the test says so."""

    def __init__(self) -> None:
        self.available = True
        self.durable: list[Entry] = []
        self.pending: list[tuple[Entry, Callable[[Any], None] | None, Any]] = []

    def commit(self, entry: Entry, notify: Callable[[Any], None], argument: Any) -> None:
        self.pending.append((entry, notify, argument))

    def ride(self, entry: Entry) -> None:
        self.pending.append((entry, None, None))

    def flush(self, count: int | None = None) -> None:
        """Make the first `count` pending entries durable, then tell who waits for them."""
        batch = self.pending[:count]
        del self.pending[: len(batch)]
        self.durable.extend(entry for entry, _, _ in batch)
        for _, notify, argument in batch:
            if notify is not None:
                notify(argument)

    def everything(self) -> list[Entry]:
        return self.durable + [entry for entry, _, _ in self.pending]


class ListOut:
    """An outbox that holds frames until the test delivers them."""

    def __init__(self, room: int = 1_000_000) -> None:
        self.frames: deque[bytes] = deque()
        self.room_frames = room

    @property
    def full(self) -> bool:
        return len(self.frames) >= self.room_frames

    def put(self, frame: bytes) -> None:
        self.frames.append(frame)

    async def room(self) -> None:
        raise AssertionError("the rules never wait")

    def take(self) -> wire.ServerFrame:
        return _decoder.decode(self.frames.popleft())

    def take_all(self) -> list[wire.ServerFrame]:
        frames = [_decoder.decode(frame) for frame in self.frames]
        self.frames.clear()
        return frames


class ListWork:
    """A worker that runs nothing by itself."""

    def __init__(self) -> None:
        self.queue: deque[RequestState] = deque()
        self.stopped: list[tuple[str, ErrorCode]] = []

    def put(self, request: RequestState) -> None:
        self.queue.append(request)

    def stop(self, request: RequestState, code: ErrorCode) -> None:
        self.stopped.append((request.id, code))


class Bench:
    """One session with everything around it; time stands still at `now`."""

    def __init__(
        self,
        *,
        window: int = 4,
        max_unacked: int = 100,
        max_result_bytes: int = 1_000_000,
        check: Callable[[str, Raw, str], object] = lambda _method, _params, _scope: None,
    ) -> None:
        self.now = 1000.0
        self.memory = Memory(1_000_000)
        self.epochs = 0
        self.window = window
        self.max_unacked = max_unacked
        self.max_result_bytes = max_result_bytes
        self.check = check
        self.journal = ListJournal()
        self.work = ListWork()
        self.out = ListOut()
        self.session = Session.open("s", "alice", "", self.rules(), self.work)

    def rules(self) -> Rules:
        self.epochs += 1
        return Rules(
            epoch=f"e{self.epochs}",
            limits=Limits(self.window, self.max_unacked, self.max_result_bytes),
            memory=self.memory,
            journal=self.journal,
            check=self.check,
            clock=lambda: self.now,
            advertised=wire.Limits(self.window, 1, 1, 1.0),
            server=wire.ServerInfo("test", "0"),
        )

    def connect(self, room: int = 1_000_000, **hello: Any) -> wire.Welcome:
        self.out = ListOut(room)
        self.session.attach(self.out, wire.Hello(**hello), 2000.0, None)
        welcome = self.out.take()
        assert isinstance(welcome, wire.Welcome)
        return welcome

    def resume(self, epoch: str | None = None, seq: int = 0, room: int = 1_000_000) -> wire.Welcome:
        return self.connect(room, session="s", epoch=epoch, seq=seq)

    def send(
        self, request_id: str, method: str = "echo", params: bytes = b"{}", **more: Any
    ) -> None:
        self.session.receive(wire.Request(request_id, method, Raw(params), **more))

    def accept(self, *request_ids: str) -> None:
        """Send requests and make them durable."""
        for request_id in request_ids:
            self.send(request_id)
        self.journal.flush()

    def start(self) -> RequestState:
        """Start the next request in the queue."""
        request = self.work.queue.popleft()
        self.session.start(request)
        return request

    def run(self, *results: bytes, durable: bool = True) -> RequestState:
        """Run the next request in the queue to a good end."""
        request = self.start()
        for data in results:
            self.session.result(request, data)
        self.session.finish(request, "done")
        if durable:
            self.journal.flush()
        return request

    def folded(self) -> SessionState:
        """Return the session as the log says it, pending entries included."""
        state = State()
        fold(state, self.journal.everything())
        return state.sessions["s"]
