"""What is counted while the meter runs; outside of that time replies are only checked."""

import time
from collections.abc import Sequence
from statistics import quantiles
from typing import Final, NamedTuple

from .websocket import ConnectionFailed

LATENCIES_MIN: Final = 2
"""Quantiles need as many."""


class Measurement(NamedTuple):
    """What one server did in `seconds`.

    `p50_seconds` and `p99_seconds` are from the write of a request to its last reply (`done`),
    `first_p50_seconds` to its first result; for a bare echo both are the same. `load_cpu` is the
    share of its core that the load generator used.
    """

    requests: int
    results: int
    seconds: float
    first_p50_seconds: float
    p50_seconds: float
    p99_seconds: float
    load_cpu: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds

    @property
    def result_rate(self) -> float:
        """Results per second."""
        return self.results / self.seconds


class Meter:
    """Counts for all connections of one load; times in seconds."""

    def __init__(self) -> None:
        self.running = False
        self.results = 0
        self.first_seconds: list[float] = []
        self.last_seconds: list[float] = []
        self._seconds = 0.0
        self._cpu_seconds = 0.0

    def start(self) -> None:
        """Begin to count."""
        self.running = True
        self._cpu_seconds = -time.process_time()
        self._seconds = -time.perf_counter()

    def stop(self) -> None:
        """Count no more."""
        self._seconds += time.perf_counter()
        self._cpu_seconds += time.process_time()
        self.running = False

    def measurement(self) -> Measurement:
        """Return what was counted. Raises ConnectionFailed when it is too little to tell."""
        cuts = self._cuts(self.last_seconds)
        return Measurement(
            requests=len(self.last_seconds),
            results=self.results,
            seconds=self._seconds,
            first_p50_seconds=self._cuts(self.first_seconds)[49],
            p50_seconds=cuts[49],
            p99_seconds=cuts[98],
            load_cpu=self._cpu_seconds / self._seconds,
        )

    def _cuts(self, seconds: Sequence[float]) -> list[float]:
        if len(seconds) < LATENCIES_MIN:
            raise ConnectionFailed(f"no replies in {self._seconds:.1f} seconds: measure longer")
        return quantiles(seconds, n=100)
