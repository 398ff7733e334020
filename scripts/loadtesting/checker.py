"""What a session must see: its requests in order, nothing lost, nothing repeated. No I/O.

    send -> accepted (n = 1, 2, 3 ... in the order of sending) -> result 0, 1, 2 ... -> one end
    lost connection -> welcome: the manifest knows everything accepted; the rest is sent again

Every frame is compared with what may come next (protocol/SPEC.md, guarantees G1 to G5). What may
not is a violation: it is reported, and checking goes on from what the server said, so that one
fault is not reported with every frame that follows. In a new epoch events of requests that have
ended come again if the manifest lists them: they are checked like others, but do not count.
"""

from collections import deque
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final

from protocol import frames as wire
from protocol.codec import FrameError

_ANY: Final = -1
"""An index: in a new epoch results come again, from the first one not acknowledged."""
_UNKNOWN_TYPE: Final = "`$.type`"
"""How msgspec ends its message about a frame of a newer server; such frames are to be ignored."""

_DIGITS_MAX: Final = 20
"""Longer ids are not ours."""

_Event = wire.Result | wire.Done | wire.Error


class Kind(StrEnum):
    """What is wrong."""

    ORDER = "order"
    LOST = "lost"
    REPEATED = "repeated"
    UNKNOWN = "unknown"


class Call:
    """One request. `due` is when it should have been sent.

    `n` is 0 until the server has named it; `accepted` tells that it said so in a frame; `again`
    that the request was on a connection that was lost; `replay` that it ended in an older epoch.
    `results` counts those of `attempt`, `index` is that of the one to come next.
    """

    __slots__ = (
        "accepted",
        "again",
        "attempt",
        "begun",
        "due",
        "index",
        "n",
        "number",
        "replay",
        "results",
    )

    def __init__(self, number: int, due: float) -> None:
        self.number = number
        self.due = due
        self.n = 0
        self.accepted = False
        self.again = False
        self.replay = False
        self.begun = False
        self.attempt = 0
        self.results = 0
        self.index = 0


class Checker:
    """The rules of one session. `violated` is told the kind and the text of each violation.

    `firsts`, `ends` and `failures` are the due times of requests that had their first result (or
    were done without one), were done, or failed (with the code); `complaints` are the codes of
    errors about no request; `refused` tells that one of the failures was a refusal. Whoever calls
    `receive` empties these lists. `reconnect_after_seconds` is what the server asked for last.
    """

    def __init__(self, violated: Callable[[Kind, str], None]) -> None:
        self.session: str | None = None
        self.epoch: str | None = None
        self.seq = 0
        self.unfinished = 0
        self.checked = 0
        self.firsts: list[float] = []
        self.ends: list[float] = []
        self.failures: list[tuple[float, str]] = []
        self.complaints: list[str] = []
        self.refused = False
        self.reconnect_after_seconds: float | None = None
        self._violated = violated
        self._number = 0
        self._calls: dict[str, Call] = {}
        # Sent and not accepted yet, in the order of sending.
        self._awaiting: deque[Call] = deque()
        # Sent again on this connection: their commit may have been on the way.
        self._twice: frozenset[str] = frozenset()
        # Whether the method is declared live: its results carry no seq. None: not known yet.
        self._live: bool | None = None
        self._accepted_n = 0
        self._started_n = 0
        self._ended_n = 0

    # What we say

    def send(self, due: Sequence[float]) -> range:
        """Note new requests, by the times they were due; return their numbers, which are ids."""
        first = self._number + 1
        calls = self._calls
        for number, time in enumerate(due, first):
            call = Call(number, time)
            calls[str(number)] = call
            self._awaiting.append(call)
        self._number += len(due)
        self.unfinished += len(due)
        return range(first, self._number + 1)

    # What the server says to hello

    def welcome(self, frame: wire.Welcome) -> list[int]:
        """Begin, or go on, on a new connection; return the numbers to be sent again first."""
        if self.session is not None and not frame.resumed:
            self._forgotten(frame)
        renewed = frame.session != self.session or frame.epoch != self.epoch
        self.session = frame.session
        self.epoch = frame.epoch
        if renewed:
            self._renew()
        for status in frame.requests:
            self._listed(status, renewed=renewed)
        if renewed:
            self._ended_n = frame.requests[0].n - 1 if frame.requests else self._accepted_n
            self._started_n = self._ended_n
        return self._unlisted({status.id for status in frame.requests})

    def _forgotten(self, frame: wire.Welcome) -> None:
        """The session is gone: only one of which nothing was accepted need not be kept."""
        if self._accepted_n:
            self._violated(
                Kind.LOST,
                f"the session, with {self._accepted_n} accepted requests, is not known any more: "
                f"{frame}",
            )
        for call in [call for call in self._calls.values() if call.n]:
            self._forget(call)
        self._accepted_n = 0

    def _renew(self) -> None:
        self.seq = 0
        for call in [call for call in self._calls.values() if call.replay]:
            self._forget(call)
        for call in self._calls.values():
            call.index = _ANY

    def _listed(self, status: wire.RequestStatus, *, renewed: bool) -> None:
        call = self._calls.get(status.id)
        if call is None:
            self._listed_again(status, renewed=renewed)
        elif call.n == 0:
            expected = self._accepted_n + 1
            if status.n != expected:
                self._violated(
                    Kind.LOST if status.n > expected else Kind.REPEATED,
                    f"n {expected} was to come next, but welcome lists {status}",
                )
            call.n = self._accepted_n = status.n
            call.accepted = True
        elif call.n != status.n:
            self._violated(Kind.ORDER, f"it was accepted as n {call.n}, welcome lists {status}")
            call.n = status.n

    def _listed_again(self, status: wire.RequestStatus, *, renewed: bool) -> None:
        """Look at a request that has ended, as far as we know."""
        number = self._sent_number(status.id)
        if number is None:
            self._violated(Kind.UNKNOWN, f"welcome lists what was never sent: {status}")
            return
        if status.state != "ended":
            self._violated(Kind.REPEATED, f"it has ended, and shall run again: {status}")
        if renewed:
            call = Call(number, 0.0)
            call.n = status.n
            call.accepted = call.replay = True
            call.index = _ANY
            self._calls[status.id] = call

    def _unlisted(self, listed: set[str]) -> list[int]:
        """Find what was never accepted; what was accepted must be listed."""
        again: list[Call] = []
        for name, call in list(self._calls.items()):
            call.again = True
            if name in listed:
                continue
            if call.n:
                self._violated(
                    Kind.LOST, f"request {name}, accepted as n {call.n}, is missing in welcome"
                )
                self._forget(call)
            else:
                again.append(call)
        self._awaiting = deque(again)
        self._twice = frozenset(str(call.number) for call in again)
        return [call.number for call in again]

    # What the server says then

    def receive(self, frames: Sequence[wire.ServerFrame | FrameError]) -> None:
        """Check frames, in the order in which they came."""
        self.checked += len(frames)
        for frame in frames:
            if isinstance(frame, wire.Result):
                self._result(frame)
            elif isinstance(frame, wire.Done):
                self._done(frame)
            elif isinstance(frame, wire.Accepted):
                self._accept(frame)
            elif isinstance(frame, wire.Error):
                self._error(frame)
            elif isinstance(frame, wire.GoAway):
                self.reconnect_after_seconds = frame.reconnect_after
            elif isinstance(frame, FrameError) and not str(frame).endswith(_UNKNOWN_TYPE):
                self._violated(Kind.UNKNOWN, f"a frame that cannot be read: {frame}")

    def _accept(self, frame: wire.Accepted) -> None:
        call = self._calls.get(frame.id)
        if call is None:
            if not (frame.duplicate and frame.id in self._twice):
                self._stranger(frame)
        elif call.accepted:
            # It was sent again while its commit was on the way: then both are answered.
            if not (frame.duplicate and frame.n == call.n and frame.id in self._twice):
                self._violated(Kind.REPEATED, f"it was accepted before, as n {call.n}: {frame}")
        else:
            call.accepted = True
            if call.n == 0:  # else a later one was accepted before it, which was reported then
                self._number_next(call, frame)

    def _number_next(self, call: Call, frame: wire.Accepted) -> None:
        n = self._accepted_n + 1
        next_call = self._awaiting.popleft()
        if next_call is not call:
            self._violated(
                Kind.ORDER, f"request {next_call.number} was to be accepted next: {frame}"
            )
            while next_call is not call:
                next_call.n = n  # most likely
                n += 1
                next_call = self._awaiting.popleft()
        elif frame.n != n:
            kind = Kind.LOST if frame.n > n else Kind.REPEATED
            self._violated(kind, f"n {n} was to be accepted next: {frame}")
        elif frame.duplicate and not call.again:
            self._violated(Kind.REPEATED, f"it was sent once only: {frame}")
        call.n = self._accepted_n = frame.n

    def _result(self, frame: wire.Result) -> None:
        seq = frame.seq
        self._live = seq == 0
        if seq and not self._is_next(seq, frame):
            return
        call = self._calls.get(frame.id)
        if call is None:
            self._stranger(frame)
            return
        if frame.attempt != call.attempt and not self._new_attempt(call, frame.attempt, frame):
            return
        index = frame.index
        if index != call.index:
            self._check_index(call, frame)
        call.index = index + 1
        if index >= call.results:
            call.results = index + 1
        self._check_begun(call, frame)
        if not call.begun:
            self._begin(call)

    def _begin(self, call: Call) -> None:
        call.begun = True
        if not call.replay:
            self.firsts.append(call.due)

    def _check_index(self, call: Call, frame: wire.Result) -> None:
        expected = call.index
        if expected == _ANY:
            if frame.index <= call.results or call.replay:
                return
            expected = call.results
        if frame.seq == 0 and call.again and frame.index > expected:
            return  # results of live methods are lost with the connection
        kind = Kind.LOST if frame.index > expected else Kind.REPEATED
        self._violated(kind, f"result {expected} was to come next: {frame}")

    def _check_begun(self, call: Call, frame: _Event) -> None:
        """Requests run one at a time, in `n` order."""
        n = call.n
        if n > self._started_n:
            self._started_n = n
        elif n == 0:
            self._violated(Kind.ORDER, f"it was not accepted yet: {frame}")
        elif n < self._started_n and isinstance(frame, wire.Result):
            self._violated(
                Kind.ORDER, f"n {self._started_n} has begun, and this is of n {n}: {frame}"
            )

    def _done(self, frame: wire.Done) -> None:
        call = self._end(frame.seq, frame.attempt, frame)
        if call is None:
            return
        if frame.results != call.results and not self._may_differ(call, frame.results):
            kind = Kind.LOST if frame.results > call.results else Kind.REPEATED
            self._violated(kind, f"{call.results} results have come: {frame}")
        if not call.replay:
            if not call.begun:
                self.firsts.append(call.due)
            self.ends.append(call.due)

    def _may_differ(self, call: Call, results: int) -> bool:
        """Tell whether some of the results need not have come."""
        if call.replay and call.index == _ANY:
            return True  # all are acknowledged
        return call.again and self._live is not False and call.results < results

    def _error(self, frame: wire.Error) -> None:
        if frame.seq is not None:
            call = self._end(frame.seq, frame.attempt, frame)
            if call is not None and not call.replay:
                self.failures.append((call.due, frame.code))
        elif frame.id is None:
            self.complaints.append(frame.code)
        else:
            self._refuse(frame.id, frame)

    def _refuse(self, name: str, frame: wire.Error) -> None:
        call = self._calls.get(name)
        if call is None:
            self._stranger(frame)
        elif call.n:
            self._violated(Kind.ORDER, f"it was accepted as n {call.n}, now it is not: {frame}")
        else:
            self._forget(call)
            self.failures.append((call.due, frame.code))
            self.refused = True

    def _end(self, seq: int, attempt: int | None, frame: wire.Done | wire.Error) -> Call | None:
        """Take the end of a request; None when it is not one."""
        if not self._is_next(seq, frame):
            return None
        call = self._calls.get(frame.id or "")
        if call is None:
            self._stranger(frame)
            return None
        if (
            attempt is not None
            and attempt != call.attempt
            and not self._new_attempt(call, attempt, frame)
        ):
            return None
        self._check_begun(call, frame)
        if call.n != self._ended_n + 1 and call.n:
            self._violated(Kind.ORDER, f"n {self._ended_n + 1} was to end next: {frame}")
        self._ended_n = max(self._ended_n, call.n)
        self._forget(call)
        return call

    def _is_next(self, seq: int, frame: _Event) -> bool:
        """Count an event; tell whether it is a new one."""
        expected = self.seq + 1
        if seq == expected:
            self.seq = seq
            return True
        if seq < expected:
            self._violated(Kind.REPEATED, f"event {expected} was to come next: {frame}")
            return False
        self._violated(Kind.LOST, f"event {expected} was to come next: {frame}")
        self.seq = seq
        return True

    def _new_attempt(self, call: Call, attempt: int, frame: _Event) -> bool:
        """Begin another attempt of a request; tell whether it is a later one."""
        if attempt < call.attempt:
            self._violated(Kind.REPEATED, f"attempt {call.attempt} has begun: {frame}")
            return False
        call.attempt = attempt
        call.results = 0
        if not call.replay:
            call.index = 0
        return True

    def _stranger(self, frame: wire.Accepted | _Event) -> None:
        if self._sent_number(frame.id or "") is None:
            self._violated(Kind.UNKNOWN, f"no such request was sent: {frame}")
        else:
            self._violated(Kind.REPEATED, f"the request has ended: {frame}")

    def _sent_number(self, name: str) -> int | None:
        if not name.isdecimal() or len(name) > _DIGITS_MAX:
            return None
        number = int(name)
        return number if str(number) == name and 0 < number <= self._number else None

    def _forget(self, call: Call) -> None:
        del self._calls[str(call.number)]
        if call.replay:
            return
        self.unfinished -= 1
        if call.n == 0:
            self._awaiting.remove(call)
