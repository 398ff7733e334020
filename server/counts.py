"""What happened to the requests and sessions of this process, in plain numbers.

One object for all sessions, counted in by the session rules: per message, per commit, per batch
of results, never by a lock or a library. The collector (metrics.py) reads it.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final, Literal

from protocol.codes import ErrorCode
from server.histogram import Histogram
from server.journal.entries import DONE
from server.journal.state import RequestState

WAIT_SECONDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip
"""Bounds of the time from arrival to start."""
REQUEST_ERROR: Final = "request_error"
"""All codes of the handlers' own together: there may be any number of them."""
OUTCOMES: Final = (
    DONE,
    ErrorCode.CANCELLED,
    ErrorCode.TIMEOUT,
    ErrorCode.HANDLER_ERROR,
    ErrorCode.RESULT_TOO_LARGE,
    ErrorCode.INTERRUPTED,
    ErrorCode.UNKNOWN_METHOD,
    ErrorCode.INVALID_PARAMS,
    REQUEST_ERROR,
)
"""How a request can end. The two before the last: after a restart with other handlers."""
Resume = Literal["same_epoch", "new_epoch", "unknown"]
"""What became of a hello that named a session; `unknown` also stands for expired and foreign."""
SessionEnd = Literal["bye", "expired", "operator"]
"""Who ended a session: its client, time, or an operator."""

_OUTCOMES: Final = frozenset(map(str, OUTCOMES))


class Counts:
    """Since the process started, but for `unfinished` and `unacked_bytes`: those are now.

    accepted, done      durable, by method
    ended_otherwise     durable, by method and outcome (of OUTCOMES, all but DONE)
    refused             frames that were not taken, by error code
    repeated            requests that came again under a known id
    replayed            attempts after the first
    results             and the bytes of their data
    unfinished          requests that were taken and have not ended
    unacked_bytes       what results that wait for an acknowledgement are counted for
    opened              sessions begun here
    ended               sessions, by who ended them
    resumes             hellos that named a session, by what became of them
    wait_seconds        from arrival to the start of a first attempt; for requests that ran at once
                        that of the first of a batch counts for all of it
    """

    __slots__ = (
        "_arrivals",
        "accepted",
        "done",
        "ended",
        "ended_otherwise",
        "opened",
        "refused",
        "repeated",
        "replayed",
        "result_bytes",
        "results",
        "resumes",
        "unacked_bytes",
        "unfinished",
        "wait_seconds",
    )

    def __init__(self) -> None:
        self.accepted: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.ended_otherwise: Counter[tuple[str, str]] = Counter()
        self.refused: Counter[ErrorCode] = Counter()
        self.repeated = 0
        self.replayed = 0
        self.results = 0
        self.result_bytes = 0
        self.unfinished = 0
        self.unacked_bytes = 0
        self.opened = 0
        self.ended: Counter[SessionEnd] = Counter()
        self.resumes: Counter[Resume] = Counter()
        self.wait_seconds = Histogram(WAIT_SECONDS)
        # How many requests whose end is not durable arrived in each second of Unix time.
        self._arrivals: dict[int, int] = {}

    def recovered(self, unfinished: Sequence[RequestState]) -> None:
        """Count what an earlier process accepted and did not end."""
        self.unfinished += len(unfinished)
        if unfinished:
            self._arrive(unfinished, 1)

    def committed(self, accepted: Sequence[RequestState], ended: Sequence[RequestState]) -> None:
        """Count what a commit of one session made durable."""
        if accepted:
            _add(self.accepted, [request.method for request in accepted])
            self._arrive(accepted, 1)
        if ended:
            outcomes = [request.outcome for request in ended]
            if outcomes.count(DONE) == len(outcomes):
                _add(self.done, [request.method for request in ended])
            else:
                self._add_each(ended)
            self._arrive(ended, -1)

    def oldest_seconds(self, now: float) -> float:
        """Return the age of the oldest request whose end is not durable, to the second; 0 without.

        `now` is Unix time. Takes as long as there are seconds in which such requests arrived.
        """
        return max(0.0, now - min(self._arrivals)) if self._arrivals else 0.0

    def _add_each(self, ended: Sequence[RequestState]) -> None:
        for request in ended:
            outcome = str(request.outcome)
            if outcome == DONE:
                self.done[request.method] += 1
            else:
                known = outcome if outcome in _OUTCOMES else REQUEST_ERROR
                self.ended_otherwise[request.method, known] += 1

    def _arrive(self, requests: Sequence[RequestState], change: int) -> None:
        """Count `requests` in or out by when they arrived; most often they came together."""
        times = [request.time for request in requests]
        first = times[0]
        if times.count(first) == len(times):
            self._arrive_at(first, change * len(times))
        else:
            for time in times:
                self._arrive_at(time, change)

    def _arrive_at(self, time: float, change: int) -> None:
        second = int(time)
        left = self._arrivals.get(second, 0) + change
        if left:
            self._arrivals[second] = left
        else:
            del self._arrivals[second]


def _add(counts: Counter[str], names: Sequence[str]) -> None:
    """Count `names`: most often they are all the same."""
    first = names[0]
    if names.count(first) == len(names):
        counts[first] += len(names)
    else:
        counts.update(names)
