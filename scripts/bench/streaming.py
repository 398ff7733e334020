"""Many results per request, and large ones, against a bare server that sends the same.

    small   requests with 1,000 results each: results/s against echoed messages of the same size/s
    large   `echo` of 1 MiB: MiB/s sent by the server against 1 MiB messages echoed

The bare server has to receive each message that it sends; ours receives little in the first case
and the same in the second, writes every result to the journal, and sends `done` after its commit.
"""

from statistics import median
from typing import Final

from .context import Context, Run
from .dialects import Dialect, Echo, Queue
from .load import Point
from .requests import (
    LargeMessages,
    LargeRequests,
    Messages,
    Requests,
    ResultMessages,
    StreamRequests,
)
from .scenario import Outcome
from .scoreboard import Figure
from .stats import Spread
from .tables import aligned
from .throughput import limited

STREAMS: Final = Point(10, 2)
"""Connections, and streams of each at one time."""
ECHOES: Final = Point(10, 64)
LARGE: Final = Point(4, 2)
LARGE_ACK_EVENTS: Final = 1
"""Large results count against the session's limit until they are acknowledged."""
_HEAD: Final = ("what", "server", "per second (min-max)", "us CPU each", "cpu", "load cpu")
_ROWS: Final = ("echo on uvloop", "ours")


class Streaming:
    """See scenario.Scenario."""

    def __init__(self, context: Context) -> None:
        sizes = context.sizes
        self._context = context
        self._streams = StreamRequests(sizes.stream_results)
        self._messages = ResultMessages(sizes.stream_results)
        self._large = LargeRequests(sizes.large_bytes)
        self._large_messages = LargeMessages(sizes.large_bytes)
        self._max_message_bytes = LARGE.window * sizes.large_bytes + 2**20
        self._small: list[tuple[Run, Run]] = []
        self._big: list[tuple[Run, Run]] = []

    def repeat(self) -> None:
        self._small.append(
            (
                self._echo(ECHOES, self._messages),
                self._ours(STREAMS, self._streams),
            )
        )
        self._big.append(
            (
                self._echo(LARGE, self._large_messages),
                self._ours(LARGE, self._large, ack_events=LARGE_ACK_EVENTS),
            )
        )

    def _echo(self, point: Point, messages: Messages) -> Run:
        with self._context.echo(max_message_bytes=self._max_message_bytes) as server:
            dialects = [Echo(messages) for _ in range(point.connections)]
            return self._context.measure(server, dialects, point.window)

    def _ours(self, point: Point, requests: Requests, **options: int) -> Run:
        context = self._context
        dialects: list[Dialect] = [
            Queue(requests, token, **options) for token in context.tokens(point.connections)
        ]
        with context.ours(max_message_bytes=self._max_message_bytes) as server:
            return context.measure(server, dialects, point.window)

    def outcome(self) -> Outcome:
        results = self._context.sizes.stream_results
        size = self._context.sizes.large_bytes / 2**20
        small = f"results/s, {results:,} results for each request"
        big = f"MiB/s, results of {size:.2g} MiB"
        lines = [
            *self._lines(small, self._small, 1, ".0f"),
            *self._lines(big, self._big, size, ".1f"),
        ]
        figures = [
            self._figure(small, self._small, 1, "echoed messages", ",.0f"),
            self._figure(big, self._big, size, "echoed", ",.1f"),
        ]
        data = {
            "small": self._as_json(self._small) | {"results_per_request": results},
            "large": self._as_json(self._big) | {"bytes": self._context.sizes.large_bytes},
        }
        return Outcome(figures, aligned(_HEAD, lines, left=2), data)

    def _lines(
        self, what: str, pairs: list[tuple[Run, Run]], unit: float, spec: str
    ) -> list[tuple[str, ...]]:
        lines: list[tuple[str, ...]] = []
        for name, runs in zip(_ROWS, zip(*pairs, strict=True), strict=True):
            rates = Spread.of(run.measurement.result_rate * unit for run in runs)
            each = median(run.server_cpu_seconds / run.measurement.results for run in runs)
            lines.append(
                (
                    "" if lines else what,
                    name,
                    f"{rates:{spec}}",
                    f"{each * 1e6:.1f}",
                    f"{median(run.server_cpu for run in runs):.0%}",
                    f"{median(run.measurement.load_cpu for run in runs):.0%}",
                )
            )
        return lines

    def _figure(
        self, what: str, pairs: list[tuple[Run, Run]], unit: float, other: str, spec: str
    ) -> Figure:
        echo, ours = zip(*pairs, strict=True)
        echoed = [run.measurement.result_rate * unit for run in echo]
        streamed = [run.measurement.result_rate * unit for run in ours]
        return Figure(
            what,
            f"{median(streamed):{spec}}",
            f"{other} {median(echoed):{spec}}",
            Spread.of_ratios(streamed, echoed),
            note=limited(echo, ours),
        )

    def _as_json(self, pairs: list[tuple[Run, Run]]) -> dict[str, float]:
        echo, ours = zip(*pairs, strict=True)
        return {
            "echo_results_per_second": median(run.measurement.result_rate for run in echo),
            "ours_results_per_second": median(run.measurement.result_rate for run in ours),
        }
