"""Client rules against server rules: whatever the network, the disk and crashes do, it fits.

The machine plays what is between the two and around them. In the end every request the client
submitted has ended, with exactly the results of the attempt that ended, in the order submitted.
"""

from collections import deque
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from protocol import frames as wire
from protocol.client_call import Call, Phase
from protocol.client_errors import RequestFailed
from protocol.client_rules import Rules
from protocol.codec import FrameError, decode_client_message
from server.journal.entries import Started
from server.journal.state import RequestState
from server.session import Rules as ServerRules
from tests.rules_bench import Bench, ListOut

WINDOW = 4
CANCELLED = b'{"code":"cancelled","message":"m","retryable":false}'


class ServerBench(Bench):
    def rules(self) -> ServerRules:
        limits = wire.Limits(self.window, 1_000_000, 1_000_000, 60)
        return msgspec.structs.replace(super().rules(), advertised=limits)


class ClientMachine(RuleBasedStateMachine):
    @initialize(outages=st.booleans())
    def begin(self, outages: bool) -> None:
        self.outages = outages
        self.bench = ServerBench(window=WINDOW)
        self.sessions = 1
        self.running: RequestState | None = None
        self.client = Rules(prefix="r", random=lambda: 0.5)
        self.now = 0.0
        self.calls: list[Call] = []
        self.connected = False
        self.to_server: deque[str] = deque()
        # What handlers gave, by request and attempt; which attempts ended.
        self.given: dict[str, dict[int, list[bytes]]] = {}
        self.counter = 0
        self.connect()

    # The network

    @precondition(lambda self: not self.connected)
    @rule()
    def connect(self) -> None:
        (hello,) = decode_client_message(self.client.hello("t"))
        assert isinstance(hello, wire.Hello)
        known = hello.session in (None, self.bench.session.state.id)
        self.bench.out = ListOut(room=3)
        self.bench.session.attach(
            self.bench.out, hello, 2000.0, None if known else "unknown_session"
        )
        welcome = self.bench.out.take()
        assert isinstance(welcome, wire.Welcome)
        self.client.welcome(welcome, self.now)
        self.connected = True

    @precondition(lambda self: self.connected)
    @rule()
    def disconnect(self) -> None:
        self.lose()
        self.bench.session.detach(self.bench.out)

    def lose(self) -> None:
        self.connected = False
        self.to_server.clear()
        self.client.lost()

    @precondition(lambda self: self.connected and self.client.has_output)
    @rule()
    def client_sends(self) -> None:
        if message := self.client.take():
            assert not [f for f in decode_client_message(message) if isinstance(f, FrameError)]
            self.to_server.append(message.decode())

    @precondition(lambda self: self.connected and self.to_server)
    @rule(count=st.integers(1, 8))
    def server_receives(self, count: int) -> None:
        for _ in range(min(count, len(self.to_server))):
            self.bench.hear(self.to_server.popleft())

    @precondition(lambda self: self.connected and self.bench.out.frames)
    @rule(count=st.integers(1, 8))
    def client_receives(self, count: int) -> None:
        frames = [self.bench.out.take() for _ in range(min(count, len(self.bench.out.frames)))]
        for frame in frames:
            if isinstance(frame, wire.Error) and frame.seq is None:
                self.check_refusal(frame)
        self.client.receive(frames, self.now)
        self.bench.session.refill()

    def check_refusal(self, frame: wire.Error) -> None:
        """See that the client did nothing wrong."""
        cancelled = any(call.cancelling for call in self.calls)
        match frame.code:
            case "journal_unavailable":
                assert self.outages
            case "window_exceeded":
                # Requests cancelled while they waited keep their place until passed over.
                assert cancelled, frame
            case "bad_frame":
                # The request was refused, and the cancel was on its way behind it.
                assert cancelled, frame
                assert frame.message.startswith("cancel:"), frame
            case _:
                raise AssertionError(frame)

    # The client

    @rule(count=st.integers(1, 3))
    def submit(self, count: int) -> None:
        for _ in range(count):
            self.calls.append(self.client.submit("m", {"number": len(self.calls)}))

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.client.cancel(data.draw(st.sampled_from(self.calls[-6:])))

    @rule()
    def time_passes(self) -> None:
        self.now += 10
        self.bench.now += 10
        self.client.tick(self.now)

    # The worker

    @precondition(lambda self: self.running is None and self.bench.work.queue)
    @rule()
    def start(self) -> None:
        request = self.bench.work.queue.popleft()
        if request.outcome is not None:
            self.bench.session.skip()
            return
        self.bench.session.start(request)
        self.running = request
        self.given.setdefault(request.id, {})[request.attempt] = []

    def may_give(self) -> bool:
        """Tell whether the handler may run: the worker waits for the start of a repetition."""
        return self.running is not None and not (
            self.running.attempt > 1 and self.bench.journal.has_undurable(Started)
        )

    @precondition(lambda self: self.may_give())
    @rule()
    def give(self) -> None:
        request = self.running
        assert request is not None
        self.counter += 1
        data = b"%d" % self.counter
        self.given[request.id][request.attempt].append(data)
        self.bench.session.result(request, data)

    @precondition(lambda self: self.running is not None)
    @rule()
    def finish(self) -> None:
        request, self.running = self.running, None
        assert request is not None
        if self.bench.work.stopped and self.bench.work.stopped[-1][0] == request.id:
            self.bench.session.finish(request, "cancelled", CANCELLED)
        else:
            self.bench.session.finish(request, "done")

    # The disk

    @precondition(lambda self: self.bench.journal.pending and not self.bench.journal.flying)
    @rule()
    def cut(self) -> None:
        self.bench.journal.cut()

    @precondition(lambda self: self.bench.journal.flying)
    @rule()
    def land(self) -> None:
        self.bench.journal.land()

    @precondition(lambda self: self.outages)
    @rule()
    def outage_begins_or_ends(self) -> None:
        self.bench.journal.available = not self.bench.journal.available

    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """The commit on its way may have landed, or, when it was several, a part of it."""
        landed = data.draw(st.integers(0, len(self.bench.journal.in_flight)))
        self.running = None
        if self.connected:
            self.lose()
        if not self.bench.crash(landed, f"s{self.sessions + 1}"):
            assert not any(call.phase is Phase.ACCEPTED for call in self.calls)
            self.sessions += 1

    # All of these together, so that much happens between two troubles

    @precondition(lambda self: self.connected)
    @rule(rounds=st.integers(1, 6), gives=st.integers(0, 3))
    def go_on(self, rounds: int, gives: int) -> None:
        for _ in range(rounds):
            self.client_sends()
            self.server_receives(8)
            self.bench.journal.flush()
            if self.running is None and self.bench.work.queue:
                self.start()
                self.bench.journal.flush()
            for _ in range(gives if self.running is not None else 0):
                self.give()
            if gives < 3 and self.running is not None:
                self.finish()
            self.bench.journal.flush()
            self.client_receives(8)

    # What always holds

    @invariant()
    def the_client_keeps_its_books(self) -> None:
        if not hasattr(self, "bench") or not self.connected:
            return
        client = self.client
        phases = [call.phase for call in client.calls.values()]
        assert client._unanswered == phases.count(Phase.SENT)
        assert client._in_flight == phases.count(Phase.SENT) + phases.count(Phase.ACCEPTED)
        assert client._in_flight <= WINDOW
        assert client._frame_bytes == sum(len(call.frame) for call in client.calls.values())
        assert all(call.ended != (call.id in client.calls) for call in self.calls)
        waiting = [call for call in client._pending if call.phase is Phase.WAITING]
        assert waiting == [c for c in client.calls.values() if c.phase is Phase.WAITING]

    def teardown(self) -> None:
        """Let the world be good, and see that every request ends as it must."""
        if not hasattr(self, "bench"):
            return
        self.bench.journal.available = True
        for _ in range(30 * (len(self.calls) + 2)):
            if not self.connected:
                self.connect()
            self.time_passes()
            self.client_sends()
            self.server_receives(100)
            self.bench.journal.flush()
            if self.running is not None:
                self.finish()
            elif self.bench.work.queue:
                self.start()
            self.bench.journal.flush()
            self.client_receives(100)
        for call in self.calls:
            self.check(call)
        positions = [call.n for call in self.calls if call.n is not None]
        if not self.outages and not any(call.cancelling for call in self.calls):
            assert positions == sorted(positions), "not in the order submitted"
        assert len(set(positions)) == len(positions)
        assert not self.bench.session.state.live, "not all was acknowledged"

    def check(self, call: Call) -> None:
        assert call.ended, f"{call.id} never ended"
        items = [] if call.items is None else list(call.items)
        assert [index for index, _ in items] == list(range(len(items))), "a gap"
        if call.error is None:
            assert [data for _, data in items] == self.given[call.id][call.attempt]
        else:
            assert isinstance(call.error, RequestFailed)
            assert (call.error.code, call.cancelling) == ("cancelled", True)


ClientMachine.TestCase.settings = settings(max_examples=300, stateful_step_count=80, deadline=None)
TestClient: Any = ClientMachine.TestCase
