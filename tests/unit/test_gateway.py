"""From hello to welcome, on connections made of plain lists."""

import asyncio
import time
from typing import Any

from protocol import frames as wire
from protocol.codec import decode_server_message, encode
from server.auth import Identity
from server.gateway import Gateway
from server.handlers import Handlers
from server.journal.state import SessionState
from server.origins import Origins
from server.pools import Pools
from server.sessions import Sessions
from server.worker import Runtime
from tests.rules_bench import Bench


class ListConnection:
    """An open connection on which `hello` was said by somebody the handshake identified."""

    def __init__(self, hello: wire.Hello) -> None:
        self.id = "c0ffee"
        self.address = "127.0.0.1"
        self.close_code = 1006
        self.identity = Identity("alice", frozenset(), time.time() + 60)
        self.request = None
        self.open = True
        self.paused_since = None
        self.sent: list[bytes] = []
        self._hello = encode(hello).decode()

    async def message(self) -> str:
        return self._hello

    def listen(self, receiver: Any) -> None:
        self.receiver = receiver

    def hold(self) -> None:
        """Hand over nothing: what comes is said to the receiver itself."""

    def go_on(self) -> None:
        """See hold."""

    def send(self, message: bytes) -> None:
        self.sent.append(message)

    def close(self, code: int, reason: str) -> None:
        raise AssertionError(reason)

    def welcome(self) -> wire.Welcome | None:
        """Return what was sent first, if anything was."""
        if not self.sent:
            return None
        welcome = decode_server_message(self.sent[0])[0]
        assert isinstance(welcome, wire.Welcome)
        return welcome


def make() -> tuple[Gateway, Sessions]:
    unused: Any = None
    sessions = Sessions(Bench().rules(), Runtime(Handlers(), Pools(), unused, 60), 100, 100)
    gateway = Gateway(
        sessions=sessions,
        verifier=unused,
        origins=Origins([]),
        clock=time.time,
        auth_timeout_seconds=60,
        slow_consumer_timeout_seconds=60,
        outbox_bytes=1_000_000,
        max_connections=100,
    )
    return gateway, sessions


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_who_resumes_waits_until_older_sessions_are_taken_over() -> None:
    gateway, sessions = make()
    resuming: Any = ListConnection(wire.Hello(session="older"))
    serving = asyncio.create_task(gateway.serve(resuming))
    await turns()
    assert resuming.welcome() is None
    sessions.recover(SessionState("older", "alice", ""))
    sessions.recovered.set()
    await serving
    await turns()
    assert resuming.welcome().resumed


async def test_new_sessions_are_served_while_older_ones_are_taken_over() -> None:
    gateway, _ = make()
    new: Any = ListConnection(wire.Hello())
    await gateway.serve(new)
    await turns()
    assert not new.welcome().resumed


class ClosableConnection(ListConnection):
    """One that may be closed; its peer reads nothing, so it is not lost for a while."""

    def __init__(self, hello: wire.Hello) -> None:
        super().__init__(hello)
        self.paused_since = 0.0

    def close(self, code: int, reason: str) -> None:
        """Begin to close."""


async def test_who_waits_for_room_on_a_connection_goes_on_when_the_session_is_taken_over() -> None:
    gateway, sessions = make()
    sessions.recovered.set()
    stuck: Any = ClosableConnection(wire.Hello())
    await gateway.serve(stuck)
    (link,) = gateway.links
    link.outbox.put(wire.GoAway("fills it", 0), 2_000_000)
    waiting = asyncio.create_task(link.outbox.room())
    await turns()
    assert not waiting.done()
    elsewhere: Any = ListConnection(wire.Hello(session=link.session.state.id))
    await gateway.serve(elsewhere)
    await turns()
    assert waiting.done()
