"""The live line: every second on a terminal, every five elsewhere."""

from typing import Final, TextIO

from .meter import Tick

TERMINAL_SECONDS: Final = 0.5
"""A line for every tick, even for one that came a little early."""
LOG_SECONDS: Final = 4.5


class Progress:
    """Writes lines about ticks to `stream`."""

    def __init__(self, stream: TextIO, connections: int) -> None:
        self._stream = stream
        self._connections = connections
        self._every_seconds = TERMINAL_SECONDS if stream.isatty() else LOG_SECONDS
        self._errors = 0
        self._tick = Tick(0)

    def tick(self, tick: Tick) -> None:
        """Show this second, or keep it for the next line."""
        self._errors += tick.failed
        self._tick.extend(tick)
        if self._tick.seconds >= self._every_seconds:
            self.say(self._line(self._tick))
            self._tick = Tick(0)

    def say(self, text: str) -> None:
        """Write a line."""
        print(text, file=self._stream, flush=True)

    def _line(self, tick: Tick) -> str:
        return (
            f"{tick.at:5.0f} s  sent {tick.sent / tick.seconds:8,.0f}/s  "
            f"done {tick.done / tick.seconds:8,.0f}/s  "
            f"p50 {_milliseconds(tick, 0.5)}  p99 {_milliseconds(tick, 0.99)}  "
            f"errors {self._errors:,}  connections {tick.connected:,}/{self._connections:,}"
        )


def _milliseconds(tick: Tick, share: float) -> str:
    if not tick.done:
        return f"{'-':>8} ms"
    return f"{1000 * tick.latencies.quantile(share):8.2f} ms"
