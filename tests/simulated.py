"""A tiny true server with its clients, driven at random: it makes histories that break no rule.

Nothing is shared with the server's code, nor with the checker's: what is true is told once more.

    client -> sent -> `take` -> pending -> `commit` -> accepted, queue
    queue -> `work` -> items -> events -> unread -> `read` -> client

A crash forgets all but what was committed; then every unfinished request counts as started once.
"""

from copy import deepcopy
from dataclasses import dataclass, field
from random import Random
from typing import Any

from msgspec import convert

from scripts.checking.history import Event

WINDOW = 6
SERVER_PID = 100
POOL_PID = 900
END = -1

Frame = dict[str, Any]


@dataclass
class Call:
    """A request as the server holds it; `dropped` results are acknowledged."""

    n: int
    id: str
    params: Frame
    pooled: bool
    attempt: int = 0
    dropped: int = 0
    items: list[Any] = field(default_factory=list[Any])
    outcome: str | None = None


@dataclass
class Kept:
    """What a commit makes durable of a session."""

    last_n: int = 0
    closed: bool = False
    live: dict[int, Call] = field(default_factory=dict[int, Call])
    acked: dict[str, Call] = field(default_factory=dict[str, Call])


class Session:
    """A session in one process: what is committed, what is not yet, and what is on its way."""

    def __init__(self, name: str, kept: Kept) -> None:
        self.name = name
        self.kept = kept
        self.committed = deepcopy(kept)
        self.accepted: list[int] = []
        self.ended: list[int] = []
        self.queue = [n for n, call in kept.live.items() if call.outcome is None]
        self.running: Call | None = None
        self.events: list[tuple[Call, int]] = []
        self.seq = 0
        for call in kept.live.values():
            if call.outcome is not None:
                entries = [(call, index) for index in range(call.dropped, len(call.items))]
                self.events += [*entries, (call, END)]
        self.seq = len(self.events)
        self.client: Client | None = None

    def frame(self, position: int) -> Frame:
        """Return the event at a position in `events`."""
        call, index = self.events[position]
        seq = self.seq - len(self.events) + 1 + position
        frame: Frame = {"id": call.id, "seq": seq, "attempt": call.attempt}
        if index != END:
            return frame | {"type": "result", "index": index, "data": call.items[index]}
        if call.outcome == "done":
            return frame | {"type": "done", "results": len(call.items)}
        return frame | {"type": "error", "code": call.outcome, "message": "m", "retryable": False}

    def add(self, call: Call, index: int) -> None:
        """Number an event and send it."""
        self.seq += 1
        self.events.append((call, index))
        if self.client is not None:
            self.client.unread.append(self.frame(-1 + len(self.events)))


class Client:
    """One client: what it knows, and the two directions of its connection."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.conn = 0
        self.session: str | None = None
        self.epoch: str | None = None
        self.seq = 0
        self.sent: list[Frame] = []
        self.unread: list[Frame] = []
        self.asked: dict[str, Frame] = {}
        self.open: set[str] = set()
        self.ended: set[str] = set()
        self.welcomed = False


class World:
    """Everything; each public method is a step that may happen at any time."""

    def __init__(self, random: Random, clients: int = 2) -> None:
        self.random = random
        self.history: list[Event] = []
        self.durable: dict[str, Kept] = {}
        self.sessions: dict[str, Session] = {}
        self.clients = [Client(f"c{i}") for i in range(clients)]
        self._names = 0
        self._conns = 0
        self._ids = 0
        self._up()

    def say(self, ev: str, **fields: Any) -> None:
        """Write an event down."""
        line = {"ev": ev, "t": float(len(self.history) + 1), **fields}
        self.history.append(convert(deepcopy(line), Event))

    def steps(self, count: int) -> None:
        """Let `count` things happen, then everything that is left to be done."""
        often = [self.ask, self.take, self.commit, self.work, self.work, self.read, self.read]
        seldom = [self.ack, self.ack, self.cancel, self.again, self.leave]
        rarely = [self.crash, self.restart]
        for _ in range(count):
            (steps,) = self.random.choices([often, seldom, rarely], [80, 19, 1])
            self.random.choice(steps)()
        self.rest()

    def rest(self) -> None:
        """Finish everything."""
        for _ in range(1000):
            for client in self.clients:
                for step in (self._connect, self._take, self._read, self._ack):
                    step(client)
            for session in self.sessions.values():
                self._work(session)
            self.commit()
            at_work = any(session.kept.live for session in self.sessions.values())
            if not at_work and not any(client.open or client.unread for client in self.clients):
                break
        self.say("quiet")

    # Clients

    def ask(self) -> None:
        """Send a new request."""
        client = self._any()
        if client.welcomed and len(client.open) < WINDOW:
            self._ids += 1
            frame = {"type": "request", "id": f"r{self._ids}", "method": "m"}
            frame["params"] = {"k": self.random.randrange(3)}
            client.asked[frame["id"]] = frame
            client.open.add(frame["id"])
            self._send(client, frame)

    def again(self) -> None:
        """Send a request again, as it was or with other params."""
        client = self._any()
        if client.welcomed and client.asked:
            frame = dict(client.asked[self.random.choice(sorted(client.asked))])
            if frame["id"] not in client.ended:
                client.open.add(frame["id"])
            elif self.random.random() < 0.3:
                frame["params"] = {"k": 9}
            self._send(client, frame)

    def cancel(self) -> None:
        """Cancel what has not ended."""
        client = self._any()
        if client.welcomed and client.open:
            self._send(client, {"type": "cancel", "id": self.random.choice(sorted(client.open))})

    def ack(self) -> None:
        """Acknowledge what was read."""
        self._ack(self._any())

    def read(self) -> None:
        """Read some of what is there, or connect."""
        client = self._any()
        self._connect(client)
        self._read(client, self.random.randrange(5))

    def leave(self) -> None:
        """Lose the connection; what is on its way is lost, or is taken first."""
        client = self._any()
        if self.random.random() < 0.5:
            self._take(client)
        self._disconnect(client)

    def _any(self) -> Client:
        return self.random.choice(self.clients)

    def _send(self, client: Client, frame: Frame) -> None:
        self.say("send", client=client.name, conn=client.conn, frame=frame)
        client.sent.append(frame)

    def _ack(self, client: Client) -> None:
        if client.welcomed and client.seq:
            self._send(client, {"type": "ack", "seq": client.seq})

    def _connect(self, client: Client) -> None:
        if client.conn:
            return
        self._conns += 1
        client.conn = self._conns
        self.say("connect", client=client.name, conn=client.conn, server=self.server)
        hello: Frame = {"type": "hello"}
        if client.session is not None:
            hello |= {"session": client.session, "epoch": client.epoch, "seq": client.seq}
        self._send(client, hello)

    def _disconnect(self, client: Client) -> None:
        if client.conn:
            self.say("disconnect", client=client.name, conn=client.conn, code=None)
        client.conn = 0
        client.welcomed = False
        client.sent.clear()
        client.unread.clear()
        for session in self.sessions.values():
            if session.client is client:
                session.client = None

    def _read(self, client: Client, count: int = 1000) -> None:
        for frame in client.unread[:count]:
            self.say("recv", client=client.name, conn=client.conn, frame=frame)
            match frame["type"]:
                case "welcome":
                    self._begin(client, frame)
                case "done" | "error" if "seq" in frame:
                    client.open.discard(frame["id"])
                    client.ended.add(frame["id"])
                    client.seq = frame["seq"]
                case "result":
                    client.seq = frame["seq"]
                case _:
                    pass
        del client.unread[:count]

    def _begin(self, client: Client, frame: Frame) -> None:
        if client.epoch != frame["epoch"]:
            client.seq = 0
        client.session = frame["session"]
        client.epoch = frame["epoch"]
        client.welcomed = True
        known = {row["id"] for row in frame["requests"]}
        for request_id in sorted(client.open - known, key=lambda r: int(r[1:])):
            self._send(client, client.asked[request_id])

    # The server

    def take(self) -> None:
        """Take what a client has sent."""
        self._take(self._any())

    def _take(self, client: Client) -> None:
        for frame in client.sent:
            if frame["type"] == "hello":
                self._welcome(client, frame)
                continue
            session = next(s for s in self.sessions.values() if s.client is client)
            match frame["type"]:
                case "request":
                    self._accept(client, session, frame)
                case "cancel":
                    self._cancel(session, frame["id"])
                case _:
                    self._acknowledge(session, frame["seq"])
        client.sent.clear()

    def _welcome(self, client: Client, hello: Frame) -> None:
        session = self.sessions.get(hello.get("session", ""))
        resumed = session is not None
        if session is None:
            self._names += 1
            session = self.sessions[f"z{self._names}"] = Session(f"z{self._names}", Kept())
        session.client = client
        first = session.seq - len(session.events)
        seen = hello["seq"] if resumed and hello["epoch"] == self.epoch else first
        rows = [
            {
                "id": call.id,
                "n": call.n,
                "state": _state(session, call),
                "attempt": call.attempt,
                "results": len(call.items),
            }
            for call in session.kept.live.values()
            if call.n <= session.committed.last_n
        ]
        client.unread.append(
            {
                "type": "welcome",
                "session": session.name,
                "resumed": resumed,
                "epoch": self.epoch,
                "seq": session.seq,
                "requests": rows,
            }
        )
        client.unread += [session.frame(i) for i in range(seen - first, len(session.events))]

    def _accept(self, client: Client, session: Session, frame: Frame) -> None:
        kept = session.kept
        request_id = frame["id"]
        known = next((c for c in kept.live.values() if c.id == request_id), None)
        known = known or kept.acked.get(request_id)
        refusal = {"type": "error", "message": "m", "retryable": False, "id": request_id}
        if known is None:
            if len(session.kept.live) >= WINDOW - 1:
                client.unread.append(refusal | {"code": "window_exceeded"})
                client.open.discard(request_id)
                return
            kept.last_n += 1
            pooled = self.random.random() < 0.2
            call = Call(kept.last_n, request_id, frame["params"], pooled)
            kept.live[call.n] = call
            session.accepted.append(call.n)
        elif known.params != frame["params"]:
            client.unread.append(refusal | {"code": "id_conflict"})
        elif known.n <= session.committed.last_n:
            state = "acknowledged" if request_id in kept.acked else _state(session, known)
            answer = {"type": "accepted", "id": request_id, "n": known.n}
            client.unread.append(answer | {"duplicate": True, "state": state})

    def _cancel(self, session: Session, request_id: str) -> None:
        call = next((c for c in session.kept.live.values() if c.id == request_id), None)
        if call is None:
            if request_id not in session.kept.acked and session.client is not None:
                refusal = {"type": "error", "message": "m", "retryable": False, "id": request_id}
                session.client.unread.append(refusal | {"code": "bad_frame"})
        elif call.outcome is None:
            if call is session.running:
                self._say_run("end", session, call, how="cancelled")
            self._end(session, call, "cancelled")

    def _acknowledge(self, session: Session, seq: int) -> None:
        for _ in range(seq - (session.seq - len(session.events))):
            call, index = session.events.pop(0)
            if index != END:
                call.dropped = index + 1
            elif call.n in session.kept.live:
                session.kept.acked[call.id] = session.kept.live.pop(call.n)

    def _end(self, session: Session, call: Call, outcome: str) -> None:
        call.outcome = outcome
        if call is session.running:
            session.running = None
        if call.n in session.queue:
            session.queue.remove(call.n)
        session.ended.append(call.n)

    def commit(self) -> None:
        """Make everything durable, and say so."""
        for session in self.sessions.values():
            session.committed = deepcopy(session.kept)
            if session.kept.last_n:
                self.durable[session.name] = session.committed
            for n in session.accepted:
                call = session.kept.live[n]
                if call.outcome is None:
                    session.queue.append(n)
                if session.client is not None:
                    frame = {"type": "accepted", "id": call.id, "n": n}
                    session.client.unread.append(frame)
            session.accepted = []
            ended, session.ended = session.ended, []
            for n in ended:
                session.add(session.kept.live[n], END)

    def work(self) -> None:
        """Let a handler begin, give an item, or end."""
        if self.sessions:
            self._work(self.sessions[self.random.choice(sorted(self.sessions))])

    def _work(self, session: Session) -> None:
        call = session.running
        if call is None:
            if session.queue:
                self._start(session, session.kept.live[session.queue.pop(0)])
            return
        fate = self.random.random()
        if call.pooled and fate < 0.3 and call.attempt < 4:
            self._start(session, call)  # its process died
            return
        if call.pooled:
            # What it gives is known when it has returned.
            self._emit(session, call)
            self._say_run("end", session, call, how="returned")
            session.add(call, 0)
            self._end(session, call, "done")
        elif fate < 0.4:
            self._emit(session, call)
            session.add(call, len(call.items) - 1)
        else:
            how, outcome = ("returned", "done") if fate < 0.8 else ("raised", "sold_out")
            self._say_run("end", session, call, how=how)
            self._end(session, call, outcome)

    def _emit(self, session: Session, call: Call) -> None:
        item = self.random.randrange(100)
        self._say_run("emit", session, call, index=len(call.items), data=item)
        call.items.append(item)

    def _start(self, session: Session, call: Call) -> None:
        call.attempt += 1
        call.items = []
        call.dropped = 0
        session.running = call
        if call.attempt > 1:
            self.commit()
        fields = {"id": call.id, "method": "m", "params": call.params}
        self._say_run("start", session, call, **fields)

    def _say_run(self, ev: str, session: Session, call: Call, **fields: Any) -> None:
        pid = POOL_PID + call.attempt if call.pooled else SERVER_PID
        run = {"server": self.server, "pid": pid, "session": session.name}
        self.say(ev, **run, n=call.n, attempt=call.attempt, **fields)

    # Processes

    def _up(self) -> None:
        number = sum(1 for event in self.history if type(event).__name__ == "Up") + 1
        self.server, self.epoch = f"s{number}", f"e{number}"
        self.say("up", server=self.server, pid=SERVER_PID, journal="j")

    def crash(self) -> None:
        """Kill the server; its clients may still read what had been sent."""
        self.say("kill", server=self.server)
        self._next(-9)

    def restart(self) -> None:
        """Stop the server in good order."""
        self.say("stop", server=self.server)
        for session in self.sessions.values():
            if session.running is not None:
                self._say_run("end", session, session.running, how="cancelled")
        self.commit()
        self._next(0)

    def _next(self, code: int) -> None:
        self.say("down", server=self.server, code=code)
        for client in self.clients:
            if self.random.random() < 0.5:
                self._read(client)
        rows = {
            name: {
                "last_n": kept.last_n,
                "closed": False,
                "live": [[c.n, c.id, c.attempt, c.outcome] for c in kept.live.values()],
            }
            for name, kept in self.durable.items()
        }
        self.say("durable", sessions=rows)
        self._up()
        for client in self.clients:
            self._disconnect(client)
        for kept in self.durable.values():
            for call in kept.live.values():
                if call.outcome is None:
                    call.items = []
                    call.dropped = 0
                    call.attempt = max(call.attempt, 1 if code else 0)
        self.sessions = {name: Session(name, kept) for name, kept in self.durable.items()}


def _state(session: Session, call: Call) -> str:
    if call is session.running or call.n in session.ended:
        return "running"
    return "waiting" if call.outcome is None else "ended"
