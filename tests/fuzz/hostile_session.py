"""A client that does whatever it likes to the session rules, chosen byte by byte.

    HostileSession(choices).run(): steps until the choices are used up -> what must always hold

The rules are the real ones; the journal, the worker and the outbox are lists (tests/rules_bench).
Beside the hostile session there is one of somebody else, to which nothing may happen.
"""

from collections.abc import Callable
from typing import Final

from msgspec import Raw

from protocol import frames as wire
from protocol.codec import TooManyBadFrames, decode_client_message
from protocol.codes import ErrorCode
from server.journal.entries import encode_error
from server.journal.state import RECENT_IDS_MIN, RequestState
from server.session import EVENT_BYTES, TOO_LARGE, Refused, ResultTooLarge, Session
from tests.fuzz.choices import Choices
from tests.rules_bench import Bench, ListOut, ListWork, pending

WINDOW: Final = 4
MAX_UNACKED: Final = 6
MAX_RESULT_BYTES: Final = 3000
ENTRIES_MAX: Final = 20
"""Entries between two commits; what a client may cause without a commit is bounded."""
FOLD_STEPS: Final = 4
"""The whole log is folded so often, which takes longer than the steps."""
_CANCELLED: Final = encode_error(ErrorCode.CANCELLED, "cancelled", retryable=False)
_RAW_TEXTS: Final = (
    "",
    "\n",
    "x",
    "{}",
    "null",
    '{"type":"ack","seq":1}x',
    '{"type":"ack",\n"seq":1}',
    '{"type":"request","id":"r0","method":"m"',
    '{"type":"request","id":"r1","method":"m","params":{"a":\n1}}',
    '{"type":"request","id":"r2","id":"r3","method":"m"}',
    '{"type":"welcome"}',
    '{"type":"ack","seq":' + "9" * 400 + "}",
    "x\n" * 150,
)
_RARE: Final = (*['{"type":"hello"}'] * 6, '{"type":"bye"}', '{"type":"bye","cancel":true}')
_LIVE: Final = 5
"""The results of each fifth request are not kept."""
_EPOCHS: Final = (None, "", "e0", "e1", "e2", "e3")


def _ends_at_once(request: RequestState) -> bool:
    return request.outcome is None and request.attempt == 0 and request.n % _LIVE != 0


def _check(method: str, _params: Raw, scope: str) -> object:
    if method == "unknown":
        raise Refused(ErrorCode.UNKNOWN_METHOD, "no such method")
    if method == "secret" and scope != "admin":
        raise Refused(ErrorCode.FORBIDDEN, "for admins")
    return None


class HostileSession:
    """See above. `trace` says what was done, for people who look for the reason of a failure."""

    def __init__(self, data: bytes) -> None:
        self.trace: list[str] = []
        self._choices = Choices(data)
        self._bench = Bench(
            window=WINDOW, max_unacked=MAX_UNACKED, max_result_bytes=MAX_RESULT_BYTES, check=_check
        )
        self._running: RequestState | None = None
        self._ids = 0
        self._neighbour_out = ListOut()
        self._meet_neighbour()
        self._attach()
        self._steps: tuple[Callable[[], None], ...] = (
            self._say,
            self._say,
            self._say,
            self._say,
            self._attach,
            self._detach,
            self._read,
            self._read,
            self._start,
            self._answer,
            self._give,
            self._give,
            self._finish,
            self._cut,
            self._land,
            self._flush,
            self._outage,
            self._expire,
            self._checkpoint,
            self._crash,
            self._work_through,
            self._go_on,
            self._go_on,
            self._insist,
        )

    def run(self) -> None:
        """Take all steps. Raises whatever goes wrong."""
        try:
            while self._choices.left:
                step = self._steps[self._choices.below(len(self._steps))]
                self.trace.append(step.__name__)
                step()
                self._always_holds()
                if len(self.trace) % FOLD_STEPS == 0:
                    self._log_says_the_same()
            self._all_ends()
        except BaseException as error:
            error.add_note("after: " + " ".join(self.trace))
            raise

    def _meet_neighbour(self) -> None:
        """Let somebody else have a session with an unacknowledged result."""
        bench = self._bench
        work = ListWork()
        self._neighbour = Session.open("t", "bob", "", bench.rules(), work)
        self._neighbour.attach(self._neighbour_out, wire.Hello(), 2000.0, None)
        message = '{"type":"request","id":"n","method":"m"}'
        self._neighbour.receive(decode_client_message(message), message)
        bench.journal.flush()
        request = work.queue.popleft()
        self._neighbour.start(request)
        self._neighbour.result(request, b"1")
        self._neighbour.finish(request, "done")
        bench.journal.flush()
        self._neighbour_out.take_all()
        self._neighbour_state = self._neighbour.state.snapshot()
        self._neighbour_bytes = self._neighbour.unacked_bytes

    # The client

    def _say(self) -> None:
        count = 1 + self._choices.below(4)
        self._hear("\n".join(self._frame() for _ in range(count)))

    def _hear(self, message: str) -> None:
        """Do as the gateway does with a message."""
        session = self._bench.session
        if session.out is None or session.state.closed:
            return  # it takes nothing from a connection that is not the session's
        self.trace.append(repr(message[:300]))
        frames = decode_client_message(message)
        rest = session.receive(frames, message)
        while rest is not None:
            session.authorize(("", "admin", "other")[self._choices.below(3)])
            if self._choices.below(4) == 0:
                self._attach()  # taken over while the token was looked at
                return
            rest = session.receive(rest[1], None)
        if session.state.closed or isinstance(frames[-1], TooManyBadFrames):
            self._detach()

    def _frame(self) -> str:
        choose = self._choices.below
        match choose(12):
            case 0 | 1 | 2 | 3 | 4:
                method = (*"mmmmmmm", "unknown", "secret", "")[choose(10)]
                params = (*["{}"] * 5, '{"a":1}', "[", '{"a": 1}')[choose(8)]
                more = ("", "", ',"on_disconnect":"cancel"', ',"timeout":0.5', ',"timeout":9e9')
                return (
                    f'{{"type":"request","id":"{self._id()}","method":"{method}",'
                    f'"params":{params}{more[choose(5)]}}}'
                )
            case 5 | 6 | 7:
                return f'{{"type":"ack","seq":{self._seq()}}}'
            case 8:
                return f'{{"type":"cancel","id":"{self._id()}"}}'
            case 9:
                return '{"type":"refresh","token":"x"}'
            case 10:
                return _RARE[choose(len(_RARE))]
            case _:
                return _RAW_TEXTS[choose(len(_RAW_TEXTS))]

    def _id(self) -> str:
        """Return an id that is new, or was used lately, or long ago."""
        match self._choices.below(4):
            case 0:
                return f"n{max(0, self._ids - self._choices.below(8))}"
            case 1:
                return f"r{self._choices.below(16)}"
            case _:
                self._ids += 1
                return f"n{self._ids}"

    def _seq(self) -> int:
        """Return a number of an event: the last, or any near it."""
        last = self._bench.session._next_seq - 1
        if self._choices.below(2):
            return last
        return max(0, last - self._choices.below(8) + self._choices.below(3))

    def _attach(self) -> None:
        session = self._bench.session
        if session.state.closed:
            return
        if session.out is not None:
            session.detach(session.out)
        epoch = _EPOCHS[self._choices.below(len(_EPOCHS))]
        self._bench.connect(
            room=1 + self._choices.below(5),
            session=("s", None, "other")[self._choices.below(3)],
            epoch=epoch,
            seq=self._seq(),
            started=self._choices.below(2) == 1,
        )

    def _detach(self) -> None:
        if (out := self._bench.session.out) is not None:
            self._bench.session.detach(out)

    def _read(self) -> None:
        out = self._bench.out
        for _ in range(min(len(out.frames), self._choices.below(8))):
            out.take()
        self._bench.session.refill()

    # The worker

    def _start(self) -> None:
        queue = self._bench.work.queue
        if self._running is not None or not queue:
            return
        request = queue.popleft()
        if request.outcome is not None:
            self._bench.session.skip()
        else:
            self._bench.session.start(request)
            self._running = request

    def _answer(self) -> None:
        queue = self._bench.work.queue
        answers: list[tuple[RequestState, bytes]] = []
        if self._running is None:
            while queue and _ends_at_once(queue[0]):
                answers.append((queue.popleft(), b"1" * self._size()))
        if answers:
            self._bench.session.answer(answers)

    def _give(self) -> None:
        if self._running is None:
            return
        if self._running.n % _LIVE == 0:
            self._bench.session.live_result(self._running, b"1")
            return
        try:
            self._bench.session.result(self._running, b"1" * self._size())
        except ResultTooLarge:
            self._finish()

    def _size(self) -> int:
        return (1, 1, 10, 700, 4000)[self._choices.below(5)]

    def _finish(self) -> None:
        request, self._running = self._running, None
        if request is None:
            return
        stopped = self._bench.work.stopped
        if stopped and stopped[-1][0] == request.id:
            self._bench.session.finish(request, ErrorCode.CANCELLED, _CANCELLED)
        else:
            self._bench.session.finish(request, "done")

    # The disk and the clock

    def _cut(self) -> None:
        if not self._bench.journal.flying:
            self._bench.journal.cut()

    def _land(self) -> None:
        if self._bench.journal.flying:
            self._bench.journal.land()

    def _flush(self) -> None:
        self._bench.journal.flush()

    def _outage(self) -> None:
        self._bench.journal.available = not self._bench.journal.available

    def _expire(self) -> None:
        self._bench.now += self._choices.below(3)
        self._bench.session.expire_results(self._bench.now - 1)

    def _checkpoint(self) -> None:
        # The server waits for the last checkpoint before it makes the next.
        self._flush()
        self._bench.session.checkpoint()

    def _crash(self) -> None:
        if self._choices.below(4):
            return
        landed = self._choices.below(len(self._bench.journal.in_flight) + 1)
        self._running = None
        self._detach()
        self._bench.crash(landed, "s")
        self._meet_neighbour()
        self._attach()

    def _work_through(self) -> None:
        """Commit, run and read everything, so that what comes next meets another situation."""
        self._bench.journal.available = True
        for _ in range(2 * WINDOW):
            self._flush()
            if self._running is not None:
                self._finish()
            self._start()
            self._flush()
        self._bench.out.frames.clear()
        self._bench.session.refill()

    def _go_on(self) -> None:
        """Do a few steps of what usually happens, without a commit."""
        if self._choices.below(2):
            self._flush()
        for _ in range(self._choices.below(6)):
            self._start()
            for _ in range(self._choices.below(3)):
                self._give()
            self._bench.out.frames.clear()
            self._bench.session.refill()
            if self._choices.below(2):
                self._hear(f'{{"type":"ack","seq":{self._seq()}}}')
            if self._choices.below(2):
                self._finish()

    def _insist(self) -> None:
        """Do the same again and again without a commit: it must not pile up."""
        kind = self._choices.below(4)
        for number in range(2 * ENTRIES_MAX):
            match kind:
                case 0:
                    self._start()
                    self._give()
                    self._bench.out.frames.clear()
                    self._bench.session.refill()
                    self._hear(f'{{"type":"ack","seq":{self._bench.session._next_seq - 1}}}')
                case 1 if not self._bench.session.state.closed:
                    self._bench.session.authorize(f"scope-{number % 2}")
                case 2:
                    self._hear(f'{{"type":"request","id":"{self._id()}","method":"m"}}')
                    self._hear(f'{{"type":"cancel","id":"n{self._ids}"}}')
                case _:
                    self._attach()
                    self._detach()

    # What always holds

    def _always_holds(self) -> None:
        bench = self._bench
        session = bench.session
        state = session.state
        unfinished = sum(r.outcome is None for r in state.live.values())
        assert session.unfinished == unfinished
        if not state.closed:
            assert session._ghosts >= 0
            assert unfinished + session._ghosts <= WINDOW
        assert len(bench.work.queue) <= WINDOW
        assert len(state.live) - unfinished <= MAX_UNACKED + WINDOW
        assert len(state.ids) == len(state.live)
        assert len(state.recent) < RECENT_IDS_MIN
        assert len(state.older) < RECENT_IDS_MIN + MAX_UNACKED + WINDOW
        ending = [state.live[n] for n in session._ending if n in state.live]
        held = sum(size for _, _, size in session._events) + sum(len(r.error) for r in ending)
        assert session.unacked_bytes == held
        assert 0 <= held <= MAX_RESULT_BYTES + (MAX_UNACKED + WINDOW) * len(TOO_LARGE)
        assert len(session._events) <= MAX_RESULT_BYTES // EVENT_BYTES + MAX_UNACKED + 2 * WINDOW
        assert sum(map(len, session._tail)) == session._tail_bytes <= MAX_RESULT_BYTES
        assert len(pending(session)) <= ENTRIES_MAX
        kept = sum(r.kept_bytes for r in state.live.values() if r.outcome is None)
        assert bench.memory.held_bytes == held + kept + self._neighbour.unacked_bytes
        assert self._neighbour.unacked_bytes == self._neighbour_bytes
        assert self._neighbour.state.snapshot() == self._neighbour_state
        assert not self._neighbour_out.frames

    def _log_says_the_same(self) -> None:
        state = self._bench.session.state
        folded = self._bench.fold().sessions.get("s")
        if state.is_over():
            assert folded is None or folded.is_over()
        else:
            assert folded is not None
            assert folded.snapshot() == state.snapshot()

    def _all_ends(self) -> None:
        """However it went: what was accepted ends."""
        for _ in range(3):
            self._work_through()
        assert not self._bench.session.unfinished
        assert not self._bench.work.queue
        assert self._bench.session.state.closed or not self._bench.session._ghosts
        self._always_holds()
        self._log_says_the_same()
