"""What makes the server fast, counted rather than timed: tasks, appends, messages, encodings.

The whole server runs in the test's own event loop, on a real journal and a real socket. Only two
things stand between: its appends pass a gate, and the loop counts what it is asked to make. The
client is a bare asyncio protocol, which makes nothing of that kind by itself.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest
from msgspec import Raw

from protocol import frames as wire
from protocol.codec import decode_server_message, encode
from scripts.bench.websocket import RawClient, text_frame
from server import Handlers, Request, app
from server.journal.entries import Accepted, Acked, Entry, Finished, decode_commit
from server.journal.log import Log
from server.journal.opening import open_store
from server.journal.sqlite import SqliteStore
from server.settings import Settings
from tests.server_process import SECRET, token

MESSAGES = 10
EACH = 100
"""Requests in each of MESSAGES messages: 1,000 of one session, none acknowledged."""
IDLE_CONNECTIONS = 10
SPACED = '{"as" :  "it was"}'
"""JSON that no encoder here would write like that."""

_Entry = TypeVar("_Entry")

handlers = Handlers()
encodings: list[str] = []
"""Grows each time a Counted is encoded."""


@dataclass(slots=True)
class Counted:
    """A result that notices when it is encoded."""

    text: str

    def __getattribute__(self, name: str) -> Any:
        if name == "text":
            encodings.append(name)
        return object.__getattribute__(self, name)


@handlers.method()
async def echo(request: Request, text: str) -> str:
    return text


@handlers.method()
async def wait_a_turn(request: Request, text: str) -> str:
    await asyncio.sleep(0)
    return text


@handlers.method()
async def spaced(request: Request) -> Raw:
    return Raw(SPACED.encode())


@handlers.method()
async def counted(request: Request) -> Counted:
    return Counted("x")


class GatedLog:
    """The journal's own log; appends are written down, and wait while the gate is shut."""

    def __init__(self, log: Log) -> None:
        self.commits: list[list[Entry]] = []
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self._log = log

    async def append(self, owner: str, seq: int, data: bytes) -> None:
        self.commits.append(decode_commit(data))
        self.begun.set()
        await self.gate.wait()
        await self._log.append(owner, seq, data)

    def holding(self, kind: type[_Entry]) -> list[_Entry]:
        """Return the entries of that kind, each of an append of its own."""
        found = [[entry for entry in commit if isinstance(entry, kind)] for commit in self.commits]
        assert all(len(some) <= 1 for some in found)
        return [entry for some in found for entry in some]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


class Serving(NamedTuple):
    """A server that is ready."""

    port: int
    log: GatedLog


@pytest.fixture
async def serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serving]:
    """Run the server here, but for what it does once a second: that would be counted too."""
    gated: list[GatedLog] = []

    async def open_gated(url: str, **options: Any) -> SqliteStore:
        store = await open_store(url, **options)
        assert isinstance(store, SqliteStore)
        gated.append(GatedLog(store.log))
        store._log = gated[0]  # type: ignore[assignment]
        return store

    async def do_nothing(*_: object) -> None:
        pass

    monkeypatch.setattr(app, "open_store", open_gated)
    monkeypatch.setattr(app.App, "_keep_journal", do_nothing)
    monkeypatch.setattr(app.App, "_sweep", do_nothing)
    monkeypatch.setattr(app.LoopLag, "run", do_nothing)
    monkeypatch.setattr(app.Operator, "run", do_nothing)
    server = app.App(
        Settings(
            port=0,
            admin_port=0,
            journal=f"sqlite:///{tmp_path / 'journal.db'}",
            jwt_secret=SECRET,
            handlers=f"{__name__}:handlers",
            window=EACH,
            max_unacked=2 * MESSAGES * EACH,
        )
    )
    await server._start()
    await server._sessions.recovered.wait()
    gated[0].commits.clear()  # the begin of its log
    gated[0].begun.clear()
    yield Serving(server.port, gated[0])
    gated[0].gate.set()
    await server._drain()
    await server._stop()


class Client:
    """One session. `messages` is what came since they were last taken, message by message."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self._socket = RawClient("/ws", wire.SUBPROTOCOL, self._take)
        self._seen: Callable[[object], bool] = lambda _: False
        self._waiter: asyncio.Future[None] | None = None

    @classmethod
    @asynccontextmanager
    async def online(cls, port: int) -> AsyncIterator["Client"]:
        """Connect and say hello; the welcome has come."""
        client = cls()
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: client._socket, "127.0.0.1", port)
        await client._socket.opened
        await client.ask(encode(wire.Hello(token=token())), is_welcome)
        try:
            yield client
        finally:
            client.send(encode(wire.Bye()))
            await client._socket.closed

    def send(self, message: bytes) -> None:
        """Send one message."""
        self._socket.write(text_frame(message))

    async def ask(self, message: bytes, until: Callable[[object], bool]) -> list[bytes]:
        """Send one message; return what came up to the message with such a frame in it."""
        waiter = self.wait(until)
        self.send(message)
        await waiter
        return self.take()

    def wait(self, until: Callable[[object], bool]) -> "asyncio.Future[None]":
        """Return a future that is done when that frame has come."""
        self._seen = until
        self._waiter = asyncio.get_running_loop().create_future()
        return self._waiter

    async def answered(self) -> None:
        """Wait until the server has taken all that was sent."""
        await self.ask(NONSENSE, is_refused)

    def take(self) -> list[bytes]:
        messages, self.messages = self.messages, []
        return messages

    def _take(self, messages: list[bytes]) -> None:
        self.messages += messages
        frames = [frame for message in messages for frame in decode_server_message(message)]
        if self._waiter is not None and not self._waiter.done() and any(map(self._seen, frames)):
            self._waiter.set_result(None)


def request(id: str, method: str = "echo", **params: Any) -> bytes:  # noqa: A002 - the wire's name
    return encode({"type": "request", "id": id, "method": method, "params": params})


def batch(name: str, count: int, method: str = "echo") -> bytes:
    """Return a message with `count` requests, `name`-1 and so on."""
    return b"\n".join(request(f"{name}-{k}", method, text="x") for k in range(1, count + 1))


NONSENSE = encode(wire.Cancel("nothing"))
"""What is refused at once, whatever the journal does."""


def is_refused(frame: object) -> bool:
    return isinstance(frame, wire.Error) and frame.id == "nothing"


def is_welcome(frame: object) -> bool:
    return isinstance(frame, wire.Welcome)


def done(id: str) -> Callable[[object], bool]:  # noqa: A002 - the wire's name
    return lambda frame: isinstance(frame, wire.Done) and frame.id == id


def kinds(message: bytes) -> list[str]:
    """Return the types of the frames in it, each once, in the order in which they come."""
    return list(dict.fromkeys(json.loads(line)["type"] for line in message.split(b"\n")))


class Made:
    """What the running loop was asked to make: counts, and the timers themselves."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.tasks = 0
        self.futures = 0
        self.timers: list[asyncio.TimerHandle] = []
        loop = asyncio.get_running_loop()
        create_future, call_at = loop.create_future, loop.call_at

        def make_future() -> "asyncio.Future[Any]":
            self.futures += 1
            return create_future()

        def make_timer(*arguments: Any, **options: Any) -> asyncio.TimerHandle:
            self.timers.append(call_at(*arguments, **options))
            return self.timers[-1]

        patch.setattr(loop, "create_future", make_future)
        patch.setattr(loop, "call_at", make_timer)  # call_later goes through it
        loop.set_task_factory(self._make_task)

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, work: Any, **options: Any
    ) -> "asyncio.Task[Any]":
        self.tasks += 1
        return asyncio.Task(work, loop=loop, **options)

    def counts(self) -> dict[str, int]:
        """Return how many there were so far."""
        return {"tasks": self.tasks, "futures": self.futures, "timers": len(self.timers)}


@pytest.fixture
async def made(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Made]:
    """Count from here on; the server has started."""
    with monkeypatch.context() as patch:
        yield Made(patch)
        asyncio.get_running_loop().set_task_factory(None)


async def test_requests_make_no_tasks_futures_or_timers(serving: Serving, made: Made) -> None:
    """A thousand requests cost as many of them as ten do: those of the messages and commits."""
    async with Client.online(serving.port) as client:
        await client.ask(request("first", text="x"), done("first"))  # the worker's task
        ten = await cost(client, made, 1, "echo")
        thousand = await cost(client, made, EACH, "echo")
    assert ten["tasks"] == 0
    assert thousand == ten


async def test_requests_that_wait_make_no_tasks_or_timers(serving: Serving, made: Made) -> None:
    """Each has a deadline, but the worker's one timer serves all."""
    async with Client.online(serving.port) as client:
        await client.ask(request("first", "wait_a_turn", text="x"), done("first"))
        thousand = await cost(client, made, EACH, "wait_a_turn")
    assert (thousand["tasks"], thousand["timers"]) == (0, 0)


async def cost(client: Client, made: Made, each: int, method: str) -> dict[str, int]:
    """Return what is made for MESSAGES messages with `each` requests, one after the other."""
    before = made.counts()
    for number in range(MESSAGES):
        name = f"{each}-{number}"
        await client.ask(batch(name, each, method), done(f"{name}-{each}"))
    return {what: count - before[what] for what, count in made.counts().items()}


async def test_an_idle_session_has_no_task_and_no_timer(serving: Serving, made: Made) -> None:
    before = asyncio.all_tasks()
    async with connected(serving.port, IDLE_CONNECTIONS):
        assert asyncio.all_tasks() - before == set()
        assert made.tasks > 0  # those that greeted
        assert [timer for timer in made.timers if not timer.cancelled()] == []


@asynccontextmanager
async def connected(port: int, count: int) -> AsyncIterator[None]:
    """Have `count` sessions that do nothing."""
    if count == 0:
        yield
        return
    async with Client.online(port), connected(port, count - 1):
        yield


async def test_a_message_that_comes_during_a_commit_is_one_entry(serving: Serving) -> None:
    """Its requests are accepted by one entry of one append, and ended by one of another."""
    log = serving.log
    message = batch("b", EACH - 1)
    async with Client.online(serving.port) as client:
        log.gate.clear()
        client.send(request("a", text="x"))
        await log.begun.wait()
        client.send(message)
        await client.answered()
        assert len(log.commits) == 1
        last = client.wait(done(f"b-{EACH - 1}"))
        log.gate.set()
        await last
    accepted = log.holding(Accepted)
    assert [(entry.n, entry.frames) for entry in accepted] == [
        (1, request("a", text="x").decode()),
        (2, message.decode()),
    ]
    finished = log.holding(Finished)
    assert [[end.n for end in entry.ends] for entry in finished] == [[1], [*range(2, EACH + 1)]]


async def test_messages_that_come_during_a_commit_are_one_append(serving: Serving) -> None:
    """Whatever sessions they are of."""
    log = serving.log
    async with Client.online(serving.port) as one, Client.online(serving.port) as two:
        log.gate.clear()
        one.send(request("a", text="x"))
        await log.begun.wait()
        for number in range(3):
            for client in (one, two):
                client.send(batch(str(number), 2))
        await one.answered()
        await two.answered()
        assert len(log.commits) == 1
        waiters = [client.wait(done("2-2")) for client in (one, two)]
        log.gate.set()
        await asyncio.gather(*waiters)
    appends = [sorted(e.n for e in made if isinstance(e, Accepted)) for made in log.commits]
    assert [ns for ns in appends if ns] == [[1], [1, 2, 3, 4, 5, 6]]


async def test_replies_to_a_message_are_two_messages(serving: Serving) -> None:
    """The first says what was accepted and what came of it, the second that it is durable."""
    async with Client.online(serving.port) as client:
        replies = await client.ask(batch("a", EACH), done(f"a-{EACH}"))
    assert [kinds(message) for message in replies] == [["accepted", "result"], ["done"]]
    assert [message.count(b"\n") + 1 for message in replies] == [2 * EACH, EACH]


async def test_an_acknowledgement_makes_no_append(serving: Serving) -> None:
    """It rides along with the next one."""
    log = serving.log
    async with Client.online(serving.port) as client:
        await client.ask(batch("a", 2), done("a-2"))
        before = len(log.commits)
        for seq in range(1, 5):
            client.send(encode(wire.Ack(seq)))
            await client.answered()
        assert len(log.commits) == before
        await client.ask(request("b", text="x"), done("b"))
        riding = [entry for entry in log.commits[before] if isinstance(entry, Acked)]
    assert [n for entry in riding for n in entry.ended] == [1, 2]


async def test_bytes_of_a_request_are_those_in_the_journal(serving: Serving) -> None:
    """However it was written, and whatever acknowledgement came with it."""
    message = (
        b'{"type":"ack" , "seq":0}\n'
        b'{ "method":"echo","id":"a" ,"params":{"text":"\\u0078"},"type":"request"}\n'
        b'{"type":"request","id":"b","method":"echo","params":{ "text" : "y" } }'
    )
    async with Client.online(serving.port) as client:
        await client.ask(message, done("b"))
    (accepted,) = serving.log.holding(Accepted)
    assert accepted.frames == message.decode()


async def test_bytes_of_a_result_are_those_in_the_journal(serving: Serving) -> None:
    """What the encoder made of the handler's value goes to both places as it is."""
    async with Client.online(serving.port) as client:
        replies = await client.ask(request("a", "spaced"), done("a"))
    (finished,) = serving.log.holding(Finished)
    assert finished.ends[0].items == [SPACED.encode()]
    assert SPACED.encode() in b"".join(replies)


async def test_a_result_is_encoded_once(serving: Serving) -> None:
    """For the wire and the journal together."""
    encodings.clear()
    message = b"\n".join(request(f"a-{k}", "counted") for k in range(1, EACH + 1))
    async with Client.online(serving.port) as client:
        await client.ask(message, done(f"a-{EACH}"))
    assert len(encodings) == EACH
