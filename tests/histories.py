"""Histories for tests of the checker, told from a true server's view: a test makes one step false.

    story = Story()
    a = story.client()
    a.whole("x", "item")  # ask, accept, run, results, done, ack
    story.crash()         # kill, down, what the journal says, the next server

Each method adds the events of one step. Arguments change what a frame or event says.
"""

from dataclasses import dataclass, field
from typing import Any

from msgspec import convert

from scripts.checking.history import Event

SERVER_PID = 100
POOL_PID = 900


@dataclass
class Call:
    """The truth about one request."""

    id: str
    n: int
    attempt: int = 0
    items: list[Any] = field(default_factory=list[Any])
    outcome: str | None = None
    acked: bool = False

    @property
    def row(self) -> list[Any]:
        """Its row of a `durable` event."""
        return [self.n, self.id, self.attempt, self.outcome]


class Story:
    """One journal, one server at a time unless a test wants more, and clients."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.clients: list[Client] = []
        self.server = ""
        self._servers = 0
        self._conns = 0
        self.up()

    def say(self, ev: str, **fields: Any) -> None:
        """Add an event, a second after the one before."""
        line = {"ev": ev, "t": float(len(self.events) + 1), **fields}
        self.events.append(convert(line, Event))

    def up(self) -> str:
        """Start the next server, which is the one from now on."""
        self._servers += 1
        self.server = f"s{self._servers}"
        self.say("up", server=self.server, pid=SERVER_PID, journal="j")
        return self.server

    def down(self, server: str | None = None, code: int = -9) -> None:
        """Say that a server is gone, by a SIGKILL or after SIGTERM."""
        server = server or self.server
        self.say("kill" if code else "stop", server=server)
        self.say("down", server=server, code=code)

    def durable(self, **changes: Any) -> None:
        """Say what the journal holds, with another word on sessions by id; None leaves one out."""
        sessions = {c.session: c.said() for c in self.clients if c.calls} | changes
        self.say("durable", sessions={k: v for k, v in sessions.items() if v is not None})

    def crash(self, code: int = -9, **changes: Any) -> None:
        """Down, durable, and up again; unfinished requests count as started once."""
        self.down(code=code)
        self.durable(**changes)
        self.up()
        for client in self.clients:
            for call in client.calls.values():
                if call.outcome is None and code:
                    call.attempt = max(call.attempt, 1)

    def client(self, name: str = "a", **hello: Any) -> "Client":
        """Connect a client of that name with a new session."""
        client = Client(self, name)
        self.clients.append(client)
        client.connect(**hello)
        return client

    def conn(self) -> int:
        """Return a new connection number."""
        self._conns += 1
        return self._conns


class Client:
    """One client and its session, `session` by id; `seq` is the last event it saw."""

    def __init__(self, story: Story, name: str) -> None:
        self.story = story
        self.name = name
        self.session = f"session_{name}"
        self.calls: dict[str, Call] = {}
        self.conn = 0
        self.server = ""
        self.epoch: str | None = None
        self.seq = 0

    def said(self) -> dict[str, Any]:
        """Return what the journal says of the session."""
        live = [c.row for c in self.calls.values() if not c.acked]
        return {"last_n": len(self.calls), "closed": False, "live": live}

    # Connections

    def connect(
        self, server: str | None = None, welcome: dict[str, Any] | None = None, **hello: Any
    ) -> None:
        """Connect, resume what there is, and get what was not acknowledged in a new epoch."""
        known = self.epoch
        self.dial(server, **hello)
        self.welcome(**(welcome or {}))
        if known is not None and known != self.epoch:
            for call in self.calls.values():
                if call.outcome is not None and not call.acked:
                    self.results(call.id)
                    self.end(call.id)

    def dial(self, server: str | None = None, **hello: Any) -> None:
        """Connect and say hello."""
        self.server = server or self.story.server
        self.conn = self.story.conn()
        self.story.say("connect", client=self.name, conn=self.conn, server=self.server)
        frame: dict[str, Any] = {"type": "hello"}
        if self.epoch is not None:
            frame |= {"session": self.session, "epoch": self.epoch, "seq": self.seq}
        self.send(frame | hello)

    def welcome(self, **changes: Any) -> None:
        """Get the answer to hello."""
        epoch = f"epoch_{self.server}"
        kept = [c for c in self.calls.values() if not c.acked]
        frame = {
            "type": "welcome",
            "session": self.session,
            "resumed": self.epoch is not None,
            "epoch": epoch,
            "seq": self.seq if epoch == self.epoch else sum(map(_events, kept)),
            "requests": [self.status(c.id) for c in kept],
        }
        if epoch != self.epoch:
            self.seq = 0
        self.epoch = epoch
        self.recv(frame | changes)

    def status(self, call_id: str, **changes: Any) -> dict[str, Any]:
        """Return a request's line in the manifest."""
        call = self.calls[call_id]
        state = "waiting" if call.outcome is None else "ended"
        line = {"id": call.id, "n": call.n, "state": state, "attempt": call.attempt}
        return line | {"results": len(call.items) if call.outcome else 0} | changes

    def disconnect(self, code: int | None = None) -> None:
        """Lose the connection."""
        self.story.say("disconnect", client=self.name, conn=self.conn, code=code)

    def send(self, frame: Any) -> None:
        """Send any frame."""
        self.story.say("send", client=self.name, conn=self.conn, frame=frame)

    def recv(self, frame: dict[str, Any]) -> None:
        """Get any frame."""
        self.story.say("recv", client=self.name, conn=self.conn, frame=frame)

    # Requests

    def ask(self, *ids: str, **changes: Any) -> None:
        """Send requests."""
        for call_id in ids:
            frame = {"type": "request", "id": call_id, "method": "m", "params": {"k": 1}}
            self.send(frame | changes)

    def take(self, *ids: str) -> None:
        """Let the server take requests, whether or not it says so."""
        for call_id in ids:
            self.calls[call_id] = Call(call_id, len(self.calls) + 1)

    def accept(self, *ids: str, **changes: Any) -> None:
        """Get `accepted`, with the next n."""
        for call_id in ids:
            if call_id not in self.calls:
                self.take(call_id)
            n = self.calls[call_id].n
            self.recv({"type": "accepted", "id": call_id, "n": n} | changes)

    def begin(self, call_id: str, server: str | None = None, **changes: Any) -> None:
        """Start a handler, in the next attempt."""
        call = self.calls[call_id]
        call.attempt += 1
        call.items = []
        server = server or self.story.server
        fields = {"server": server, "pid": SERVER_PID, "session": self.session, "n": call.n}
        fields |= {"id": call_id, "attempt": call.attempt, "method": "m"}
        self.story.say("start", **fields | changes)

    def emit(self, call_id: str, *items: Any, **changes: Any) -> None:
        """Let the handler give items."""
        for item in items:
            fields = self._run(call_id) | {"index": len(self.calls[call_id].items), "data": item}
            self.calls[call_id].items.append(item)
            self.story.say("emit", **fields | changes)

    def finish(self, call_id: str, how: str = "returned", **changes: Any) -> None:
        """Let the handler be over."""
        self.story.say("end", **self._run(call_id) | {"how": how} | changes)
        if how == "returned":
            self.calls[call_id].outcome = "done"

    def run(self, call_id: str, *items: Any) -> None:
        """Run a handler from start to end."""
        self.begin(call_id)
        self.emit(call_id, *items)
        self.finish(call_id)

    def _run(self, call_id: str) -> dict[str, Any]:
        call = self.calls[call_id]
        fields = {"server": self.story.server, "pid": SERVER_PID, "session": self.session}
        return fields | {"n": call.n, "attempt": call.attempt}

    # Events

    def result(self, call_id: str, index: int, **changes: Any) -> None:
        """Get one result."""
        call = self.calls[call_id]
        self.seq += 1
        frame = {"type": "result", "id": call_id, "seq": self.seq, "attempt": call.attempt}
        self.recv(frame | {"index": index, "data": call.items[index]} | changes)

    def results(self, call_id: str, first: int = 0) -> None:
        """Get all results from index `first` on."""
        for index in range(first, len(self.calls[call_id].items)):
            self.result(call_id, index)

    def end(self, call_id: str, **changes: Any) -> None:
        """Get `done`, or the error that the request ended with."""
        call = self.calls[call_id]
        self.seq += 1
        frame: dict[str, Any] = {"id": call_id, "seq": self.seq, "attempt": call.attempt}
        if call.outcome == "done":
            frame |= {"type": "done", "results": len(call.items)}
        else:
            frame |= {"type": "error", "code": call.outcome, "message": "", "retryable": False}
        self.recv(frame | changes)

    def fail(self, call_id: str, code: str, **changes: Any) -> None:
        """Get a terminal error."""
        self.calls[call_id].outcome = code
        self.end(call_id, **changes)

    def refuse(self, code: str, **changes: Any) -> None:
        """Get an error that ends nothing."""
        self.recv({"type": "error", "code": code, "message": "", "retryable": False} | changes)

    def ack(self, *ids: str, seq: int | None = None) -> None:
        """Acknowledge all events, which are those of the requests `ids`."""
        self.send({"type": "ack", "seq": self.seq if seq is None else seq})
        for call_id in ids:
            self.calls[call_id].acked = True

    def whole(self, call_id: str, *items: Any) -> None:
        """Take a request from `request` to `ack`."""
        self.ask(call_id)
        self.accept(call_id)
        self.run(call_id, *items)
        self.results(call_id)
        self.end(call_id)
        self.ack(call_id)


def _events(call: Call) -> int:
    return 0 if call.outcome is None else len(call.items) + 1
