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
    """Since the process started; a request that is accepted becomes durable a moment later.

    accepted            requests, by method
    done                requests that ended well, by method
    ended_otherwise     those that did not, by method and outcome (of OUTCOMES)
    refused             frames that were not taken, by error code
    repeated            requests that came again under a known id
    replayed            attempts after the first
    results             and the bytes of their data
    opened              sessions begun here
    ended               sessions, by who ended them
    resumes             hellos that named a session, by what became of them
    wait_seconds        from arrival to the start of a first attempt; for requests that ran at once
                        that of the first of a batch counts for all of it
    """

    __slots__ = (
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
        "wait_seconds",
    )

    def __init__(self) -> None:
        # Not Counters: each of theirs is set by a method in Python.
        self.accepted: dict[str, int] = {}
        self.done: dict[str, int] = {}
        self.ended_otherwise: Counter[tuple[str, str]] = Counter()
        self.refused: Counter[ErrorCode] = Counter()
        self.repeated = 0
        self.replayed = 0
        self.results = 0
        self.result_bytes = 0
        self.opened = 0
        self.ended: Counter[SessionEnd] = Counter()
        self.resumes: Counter[Resume] = Counter()
        self.wait_seconds = Histogram(WAIT_SECONDS)

    @property
    def requests_ended(self) -> int:
        """How many requests have ended."""
        return sum(self.done.values()) + self.ended_otherwise.total()

    def accept(self, requests: Sequence[RequestState]) -> None:
        """Count `requests`, of which there is at least one, as accepted."""
        _add(self.accepted, requests)

    def end_at_once(self, requests: Sequence[RequestState]) -> None:
        """Count `requests`, of which there is at least one, as done."""
        _add(self.done, requests)

    def end(self, method: str, outcome: str) -> None:
        """Count one request as ended."""
        if outcome == DONE:
            self.done[method] = self.done.get(method, 0) + 1
        else:
            self.ended_otherwise[method, outcome if outcome in _OUTCOMES else REQUEST_ERROR] += 1


def _add(counts: dict[str, int], requests: Sequence[RequestState]) -> None:
    """Count `requests` by method: most often they have all the same."""
    first = requests[0].method
    for request in requests:
        if request.method is not first:  # names are interned; where not, it is only slower
            break
    else:
        counts[first] = counts.get(first, 0) + len(requests)
        return
    for request in requests:
        counts[request.method] = counts.get(request.method, 0) + 1
