"""Arbitrary interleavings of frames, commits, disconnects, resumes and crashes keep G1 to G5.

The machine plays the network, the disk, the worker and a client that follows SPEC.md; after every
step it compares what the client has seen and what ran with the guarantees.
"""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from protocol import frames as wire
from protocol.codec import decode_client_message
from server.journal.entries import Accepted, End, Entry, Finished, Started
from server.journal.state import RequestState
from tests.rules_bench import Bench

IDS = [f"id{i}" for i in range(12)]


class SeenRequest:
    """What the client knows of one of its requests."""

    def __init__(self) -> None:
        self.n: int | None = None
        self.attempt = 0
        self.results: list[bytes] = []
        self.ended: str | None = None


class SessionMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.bench = Bench(window=4)
        self.running: RequestState | None = None
        self.given: list[bytes] = []
        self.started_n = 0
        self.counter = 0
        # The client
        self.connected = False
        self.known = False
        self.epoch: str | None = None
        self.seq = 0
        self.acked = 0
        self.repeated_seq = 0
        self.requests: dict[str, SeenRequest] = {}
        # The truth
        self.durable_accepts: dict[str, int] = {}
        self.durable_ends: dict[str, list[bytes]] = {}
        self.connect()

    # The network

    def connect(self) -> None:
        bench = self.bench
        hello: dict[str, Any] = {}
        if self.known:
            hello = {"session": "s", "epoch": self.epoch, "seq": self.seq}
        welcome = bench.connect(room=3, **hello)
        if welcome.epoch != self.epoch:
            self.epoch, self.seq, self.acked = welcome.epoch, 0, 0
            self.repeated_seq = welcome.seq
        self.known = True
        self.connected = True
        for status in welcome.requests:
            assert status.id in self.durable_accepts, "G1: the manifest names what is not durable"
        in_manifest = {status.id for status in welcome.requests}
        for request_id, seen in self.requests.items():
            if seen.ended is None and seen.n is not None:
                assert request_id in in_manifest, "G1: an accepted request is gone"

    @precondition(lambda self: not self.connected)
    @rule()
    def resume(self) -> None:
        self.connect()

    @precondition(lambda self: self.connected)
    @rule()
    def disconnect(self) -> None:
        self.connected = False
        self.bench.session.detach(self.bench.out)

    @precondition(lambda self: self.connected)
    @rule(count=st.integers(1, 5))
    def deliver(self, count: int) -> None:
        out = self.bench.out
        for _ in range(min(count, len(out.frames))):
            self.client_receives(out.take())
        self.bench.session.refill()

    def client_receives(self, frame: wire.ServerFrame) -> None:
        match frame:
            case wire.Accepted(id=request_id, n=n):
                assert self.durable_accepts.get(request_id) == n, "G1: accepted is not durable"
                seen = self.requests[request_id]
                assert seen.n in (None, n), "G4: one id got two positions"
                seen.n = n
            case wire.Result():
                self.event(frame.seq)
                seen = self.requests[frame.id]
                if seen.ended is None:
                    assert frame.attempt >= seen.attempt, "an older attempt came back"
                    if frame.attempt > seen.attempt:
                        seen.attempt, seen.results = frame.attempt, []
                    if frame.index < len(seen.results):
                        # SPEC.md: a new epoch repeats what was not acknowledged.
                        assert seen.results[frame.index] == bytes(frame.data), "G5: it changed"
                        assert self.seq <= self.repeated_seq, "G5: a repeat within an epoch"
                    else:
                        assert frame.index == len(seen.results), "G5: a gap"
                        seen.results.append(bytes(frame.data))
            case wire.Done() | wire.Error():
                assert frame.seq is not None, frame
                self.event(frame.seq)
                assert frame.id is not None
                self.ended(frame.id, "done" if isinstance(frame, wire.Done) else frame.code, frame)
            case _:
                raise AssertionError(frame)

    def event(self, seq: int) -> None:
        assert seq == self.seq + 1, "G5: events are numbered without gap or repeat"
        self.seq = seq

    def ended(self, request_id: str, outcome: str, frame: wire.Done | wire.Error) -> None:
        assert request_id in self.durable_ends, "G2: the end is not durable"
        seen = self.requests[request_id]
        if seen.ended is not None:
            assert seen.ended == outcome, "G2: a request ended in two ways"
            return
        assert frame.attempt is not None
        if frame.attempt > seen.attempt:
            seen.attempt, seen.results = frame.attempt, []
        seen.ended = outcome
        durable = self.durable_ends[request_id]
        # One that was cancelled while it waited for a repetition adds nothing to what was seen.
        kept = seen.results if outcome == "done" else seen.results[: len(durable)]
        assert kept == durable, "G5: results are missing"

    # The client

    @precondition(lambda self: self.connected)
    @rule(request_id=st.sampled_from(IDS))
    def request(self, request_id: str) -> None:
        bench = self.bench
        before = len(bench.session.state.live)
        refused = bench.session.unfinished + bench.session._ghosts >= bench.window
        known = request_id in bench.session.state.ids or bench.session.state.acknowledged(
            request_id
        )
        if refused and not known:
            return  # a client keeps to the window
        self.requests.setdefault(request_id, SeenRequest())
        bench.send(request_id)
        if known:
            assert len(bench.session.state.live) == before, "G4: a known id was taken again"

    @precondition(lambda self: self.connected and self.seq > self.acked)
    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        self.acked = data.draw(st.integers(self.acked + 1, self.seq))
        self.bench.say(wire.Ack(self.acked))

    @precondition(lambda self: self.connected)
    @rule(request_id=st.sampled_from(IDS))
    def cancel(self, request_id: str) -> None:
        if request_id in self.bench.session.state.ids:
            self.bench.say(wire.Cancel(request_id))

    # An operator, who needs no connection

    @rule(request_id=st.sampled_from(IDS))
    def operator_cancels(self, request_id: str) -> None:
        n = self.bench.session.state.ids.get(request_id)
        if n is not None:
            self.bench.session.cancel(n)

    # The worker

    @precondition(lambda self: self.running is None and self.bench.work.queue)
    @rule()
    def start(self) -> None:
        request = self.bench.work.queue.popleft()
        if request.outcome is not None:
            self.bench.session.skip()
            return
        self.check_start(request)
        assert all(
            r.outcome is not None for r in self.bench.session.state.live.values() if r.n < request.n
        ), "G3: an earlier one has not ended"
        self.bench.session.start(request)
        self.running = request
        self.given = []

    def check_start(self, request: RequestState) -> None:
        seen = self.requests[request.id]
        assert seen.ended is None, "G2: a request whose end was seen runs again"
        assert request.id in self.durable_accepts, "it runs before it is durable"
        assert request.n > self.started_n, "G3: out of order"
        self.started_n = request.n

    @precondition(lambda self: self.running is None and self.bench.work.queue)
    @rule()
    def answer(self) -> None:
        """Run requests that end in their first step, as many as there are in a first attempt."""
        answers: list[tuple[RequestState, bytes]] = []
        queue = self.bench.work.queue
        while queue and queue[0].outcome is None and queue[0].attempt == 0:
            request = queue.popleft()
            self.check_start(request)
            self.counter += 1
            answers.append((request, b"%d" % self.counter))
        if answers:
            self.bench.session.answer(answers)

    @precondition(lambda self: self.running is not None and self.start_is_durable())
    @rule()
    def give(self) -> None:
        self.counter += 1
        data = b"%d" % self.counter
        self.bench.session.result(self.running, data)
        self.given.append(data)

    @precondition(lambda self: self.running is not None)
    @rule()
    def finish(self) -> None:
        request = self.running
        assert request is not None
        self.running = None
        if self.bench.work.stopped and self.bench.work.stopped[-1][0] == request.id:
            error = b'{"code":"cancelled","message":"m","retryable":false}'
            self.bench.session.finish(request, "cancelled", error)
        else:
            self.bench.session.finish(request, "done")

    def start_is_durable(self) -> bool:
        """Tell whether the handler may run: the worker waits for the start of a repetition."""
        repeated = self.running is not None and self.running.attempt > 1
        return not (repeated and self.bench.journal.has_undurable(Started))

    # The disk

    @precondition(lambda self: self.bench.journal.pending and not self.bench.journal.flying)
    @rule()
    def cut(self) -> None:
        self.bench.journal.cut()

    @precondition(lambda self: self.bench.journal.flying)
    @rule()
    def land(self) -> None:
        # What is durable is known before anybody is told.
        self.note_durable(self.bench.journal.in_flight)
        self.bench.journal.land()

    def note_durable(self, entries: list[Entry]) -> None:
        for entry in entries:
            if isinstance(entry, Accepted):
                for k, frame in enumerate(requests_of(entry)):
                    assert frame.id not in self.durable_accepts, "G4: one id accepted twice"
                    self.durable_accepts[frame.id] = entry.n + k
            elif isinstance(entry, Finished):
                for end in entry.ends:
                    request_id = next(i for i, n in self.durable_accepts.items() if n == end.n)
                    assert request_id not in self.durable_ends, "G4: one id ended twice"
                    self.durable_ends[request_id] = self.results_of(request_id, end)

    def results_of(self, request_id: str, end: End) -> list[bytes]:
        """Return all results: those acknowledged before the end are only with the client."""
        early = self.requests[request_id].results[: end.first] if end.first else []
        return early + end.items

    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """The commit on its way may have landed, or, when it was several, a part of it."""
        in_flight = self.bench.journal.in_flight
        landed = data.draw(st.integers(0, len(in_flight)))
        self.note_durable(in_flight[:landed])
        self.running = None
        self.started_n = 0
        self.connected = False
        if not self.bench.crash(landed, "s"):
            # Nothing of the session had been made durable: the client begins anew.
            assert not self.durable_accepts, "G1: an accepted request is gone"
            self.known, self.epoch, self.requests = False, None, {}

    # What always holds

    @invariant()
    def folding_the_log_gives_the_state_the_server_holds(self) -> None:
        if hasattr(self, "bench"):
            assert self.bench.folded().snapshot() == self.bench.session.state.snapshot()

    @invariant()
    def memory_is_accounted_for(self) -> None:
        if hasattr(self, "bench"):
            session = self.bench.session
            assert session.unacked_bytes >= 0
            live = session.state.live.values()
            kept = sum(request.kept_bytes for request in live if request.outcome is None)
            assert self.bench.memory.held_bytes == session.unacked_bytes + kept
            assert self.bench.load.unfinished.held == session.unfinished

    def teardown(self) -> None:
        """However it went: in the end everything accepted ends, and the client has all of it."""
        if not hasattr(self, "bench"):
            return
        for _ in range(200):
            if not self.connected:
                self.connect()
            journal = self.bench.journal
            if journal.pending and not journal.flying:
                self.cut()
            if journal.flying:
                self.land()
            if self.running is not None:
                self.finish()
            elif self.bench.work.queue:
                self.start()
            self.deliver(5)
        for request_id, n in self.durable_accepts.items():
            seen = self.requests[request_id]
            assert seen.ended is not None, f"G1: request {n} never ended"


def requests_of(entry: Accepted) -> list[wire.Request]:
    frames = decode_client_message(entry.frames)
    return [frame for frame in frames if isinstance(frame, wire.Request)]


SessionMachine.TestCase.settings = settings(max_examples=400, stateful_step_count=60, deadline=None)
TestSession = SessionMachine.TestCase
