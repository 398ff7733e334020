"""A bench for the session rules: a log, an outbox and a worker made of plain lists."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from protocol import frames as wire
from protocol.codec import decode_client_message, encode, encode_message
from protocol.codes import ErrorCode
from server.handlers import Handlers
from server.journal.entries import Entry, Source, Started
from server.journal.state import RequestState, SessionState, State, fold
from server.load import Load
from server.recovery import prepare
from server.session import FRAME_BYTES, Limits, Memory, Rules, Session

_decoder = msgspec.json.Decoder(wire.ServerFrame)


class ListJournal:
    """A log in memory: commits are cut and become durable when the test says so."""

    def __init__(self) -> None:
        self.available = True
        self.durable: list[Entry] = []
        self.in_flight: list[Entry] = []
        self._sources: dict[Source, None] = {}
        self._told: list[Source] = []

    def commit(self, source: Source) -> None:
        self._sources[source] = None

    def ride(self, source: Source) -> None:
        self._sources[source] = None

    def bulk(self, source: Source) -> None:
        self._sources[source] = None

    def forget(self, source: Source) -> None:
        self._sources.pop(source, None)

    @property
    def pending(self) -> bool:
        return bool(self._sources or self._told)

    @property
    def flying(self) -> bool:
        return bool(self._told)

    def cut(self) -> None:
        """Cut off a commit; it is on its way until it lands."""
        assert not self._told
        self._told, self._sources = list(self._sources), {}
        for source in self._told:
            self.in_flight += source.cut()

    def land(self) -> None:
        """Make the commit on its way durable, then tell who waits for it."""
        self.durable += self.in_flight
        self.in_flight = []
        told, self._told = self._told, []
        for source in told:
            source.committed()

    def flush(self) -> None:
        """Make everything durable that is pending now."""
        if self.flying:
            self.land()
        self.cut()
        self.land()

    def everything(self) -> list[Entry]:
        """Return the whole log as it would be if everything pending became durable."""
        entries = self.durable + self.in_flight
        for source in self._sources:
            assert isinstance(source, Session)
            entries += pending(source)
        return entries

    def has_undurable(self, kind: type[Entry]) -> bool:
        """Tell whether an entry of that kind would be lost in a crash."""
        return any(isinstance(entry, kind) for entry in self.everything()[len(self.durable) :])


def pending(session: Session) -> list[Entry]:
    """Return what a cut would return, without cutting."""
    entries = list(session._entries)
    running = session._running
    if running is not None and not session._noted:
        entries.append(Started(session.state.id, running.n, running.attempt, running.started))
    return entries


class ListOut:
    """An outbox that holds encoded frames until the test delivers them."""

    def __init__(self, room: int = 1_000_000) -> None:
        self.frames: deque[bytes] = deque()
        self.room_frames = room

    @property
    def full(self) -> bool:
        return len(self.frames) >= self.room_frames

    def put(self, frame: wire.ServerFrame | Raw, size: int = FRAME_BYTES) -> None:
        self.frames.extend(encode_message([frame]).split(b"\n"))

    def put_all(self, frames: Sequence[wire.ServerFrame], sizes: Sequence[int]) -> None:
        for frame, _ in zip(frames, sizes, strict=True):
            self.put(frame)

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

    def put(self, batch: Sequence[RequestState]) -> None:
        self.queue.extend(batch)

    def stop(self, request: RequestState, code: ErrorCode, message: str) -> None:
        self.stopped.append((request.id, code))


class Bench:
    """One session with everything around it; time stands still at `now`."""

    def __init__(
        self,
        *,
        window: int = 4,
        max_unacked: int = 100,
        max_result_bytes: int = 1_000_000,
        max_params_bytes: int = 100_000,
        requests_per_second: int = 1_000_000,
        check: Callable[[str, Raw, str], object] = lambda _method, _params, _scope: None,
    ) -> None:
        self.now = 1000.0
        self.memory = Memory(1_000_000)
        self.epochs = 0
        self.window = window
        self.max_unacked = max_unacked
        self.max_result_bytes = max_result_bytes
        self.max_params_bytes = max_params_bytes
        self.requests_per_second = requests_per_second
        self.load = Load(1_000_000)
        self.check = check
        self.journal = ListJournal()
        self.work = ListWork()
        self.out = ListOut()
        self.session = Session.open("s", "alice", "", self.rules(), self.work)

    def rules(self) -> Rules:
        self.epochs += 1
        return Rules(
            epoch=f"e{self.epochs}",
            limits=Limits(
                self.window,
                self.max_unacked,
                self.max_result_bytes,
                self.max_params_bytes,
                self.requests_per_second,
            ),
            memory=self.memory,
            journal=self.journal,
            check=self.check,
            note=lambda _session, _ended: None,
            clock=lambda: self.now,
            advertised=wire.Limits(self.window, 1, 1, 1.0),
            server=wire.ServerInfo("test", "0"),
            load=self.load,
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
        self.say(wire.Request(request_id, method, Raw(params), **more))

    def say(self, *frames: wire.ClientFrame) -> None:
        """Send `frames` as one message."""
        self.hear("\n".join(encode(frame).decode() for frame in frames))

    def hear(self, message: str) -> None:
        """Send a message as the client's text."""
        self.session.receive(decode_client_message(message), message)

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

    def crash(self, landed: int, fresh: str) -> bool:
        """Lose what is not durable, and begin a new epoch; tell whether the session survived.

        Of the commit on its way `landed` entries count as durable. Without a survivor there is a
        new session named `fresh`.
        """
        self.journal.durable += self.journal.in_flight[:landed]
        state = State()
        fold(state, self.journal.durable)
        survivor = state.sessions.get(self.session.state.id)
        self.journal = ListJournal()
        self.memory = Memory(1_000_000)
        self.load = Load(1_000_000)
        self.work = ListWork()
        if survivor is None:
            self.session = Session.open(fresh, "alice", "", self.rules(), self.work)
            return False
        prepare(survivor, Handlers(), orderly=False)
        self.journal.durable.append(survivor.snapshot())
        self.session = Session(survivor, self.rules(), self.work)
        self.session.recover()
        return True

    def fold(self) -> State:
        """Return what the log says, pending entries included."""
        state = State()
        fold(state, self.journal.everything())
        return state

    def folded(self) -> SessionState:
        """Return the session as the log says it, pending entries included."""
        return self.fold().sessions["s"]
