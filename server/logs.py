"""Logs to stderr: our own lines and those of libraries take the same way.

    structlog           -> level -> limit -> request, time, exception -> console or JSON -> writer
    standard `logging`  -> limit -> level, request, time, exception   -> console or JSON -> writer

Libraries are kept from DEBUG whatever the level: `websockets` and `pymongo` would write tokens
and params there.

A line that nobody takes, on a full disk or in a closed pipe, is dropped, and so is what a pipe
that nobody reads cannot hold: whoever had something to say goes on (log_writer.py). Repeats are
limited and counted (log_limits.py). What events there are is in log_events.py.
"""

import logging
import os
import re
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import structlog
from structlog.typing import EventDict, Processor

from server.log_context import add_request
from server.log_limits import Limiter
from server.log_writer import LineWriter

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

Format = Literal["auto", "json", "console"]
Level = Literal["debug", "info", "warning", "error"]

FLUSH_SECONDS: Final = 1.0
"""How long the end of the process waits for a reader of the log."""

_log = structlog.get_logger(__name__)

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""What could start a new line, move the cursor or turn the text of a terminal around."""

_TIME: Final = structlog.processors.TimeStamper(fmt="iso", utc=True)


class Logs:
    """All logging of a process: made by `configure`, to be swept every second and closed."""

    def __init__(self, format: Format, level: Level, descriptor: int) -> None:  # noqa: A002 - the setting's name
        console = format == "console" or (format == "auto" and os.isatty(descriptor))
        self._render: list[Processor] = (
            _console(os.isatty(descriptor)) if console else [structlog.processors.JSONRenderer()]
        )
        self.chosen: tuple[Format, Level] = (format, level)
        self._threshold = logging.getLevelNamesMapping()[level.upper()]
        self.writer = LineWriter(descriptor, self._dropped)
        self.limiter = Limiter(self._suppressed)

    def start(self) -> None:
        """Take all lines of this process from now on."""
        shared: list[Processor] = [
            structlog.contextvars.merge_contextvars,
            add_request,
            _TIME,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
        ]
        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                self.limiter,
                *shared,
                *self._render,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(self._threshold),
            logger_factory=self._logger,
            cache_logger_on_first_use=False,
        )
        handler = _Handler(self)
        handler.addFilter(self.limiter)
        handler.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                foreign_pre_chain=[
                    structlog.stdlib.add_logger_name,
                    structlog.processors.add_log_level,
                    *shared,
                ],
                processors=[
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    *self._render,
                ],
            )
        )
        logging.basicConfig(
            handlers=[handler], level=max(self._threshold, logging.INFO), force=True
        )
        # At INFO it says a line for each connection that opens or closes.
        logging.getLogger("websockets").setLevel(max(self._threshold, logging.WARNING))
        # What the interpreter would write to stderr itself, waiting for its reader.
        logging.captureWarnings(capture=True)
        sys.unraisablehook = _on_unraisable
        threading.excepthook = _on_thread_failed

    def line(self, level: str, event: str, fields: Mapping[str, Any]) -> str:
        """Return a line about the log itself, which takes no way but to the writer."""
        content: EventDict = {**fields, "event": event, "level": level}
        text: Any = _TIME(None, level, content)
        for processor in self._render:
            text = processor(None, level, text)
        return f"{text}\n"

    def _logger(self, *names: str) -> "_Logger":
        return _Logger(self.writer, names[0] if names else "")

    def _dropped(self, count: int) -> str:
        return self.line("warning", "log_lines_dropped", {"count": count})

    def _suppressed(self, level: str, fields: Mapping[str, Any]) -> None:
        self.writer.write(self.line(level, "suppressed", fields))


_logs: Logs | None = None


def configure(format: Format, level: Level) -> Logs:  # noqa: A002 - the setting's name
    """Set up all logging of this process; `auto` is console on a terminal and JSON elsewhere."""
    global _logs  # noqa: PLW0603 - there is one log, as there is one stderr
    _logs = Logs(format, level, sys.stderr.fileno())
    _logs.start()
    return _logs


def chosen() -> tuple[Format, Level] | None:
    """Return what `configure` was called with, for the processes of the pool."""
    return None if _logs is None else _logs.chosen


def sweep() -> None:
    """Say what was suppressed and is not said yet; to be called every second."""
    if _logs is not None:
        _logs.limiter.sweep()


def close() -> None:
    """Say what was suppressed, and wait FLUSH_SECONDS at most for lines that nobody has read."""
    if _logs is not None:
        _logs.limiter.close()
        _logs.writer.flush(FLUSH_SECONDS)
    try:
        sys.stderr.flush()
    except OSError:
        # The interpreter would try once more, and exit with 120.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


class Counts(NamedTuple):
    """Lines since the start: left out as repeats, and lost since nobody took them."""

    suppressed: int
    dropped: int


def counts() -> Counts:
    """Return how many lines there are not in the log."""
    if _logs is None:
        return Counts(0, 0)
    return Counts(_logs.limiter.suppressed_total, _logs.writer.dropped)


class _Logger:
    """Where structlog's lines end: each method writes one. `name` is that of the module."""

    def __init__(self, writer: LineWriter, name: str) -> None:
        self.name = name
        self._writer = writer

    def msg(self, message: str) -> None:
        self._writer.write(f"{message}\n")

    debug = info = warning = error = critical = exception = msg
    warn = log = fatal = failure = err = msg


class _Handler(logging.Handler):
    """Where the lines of `logging` end."""

    def __init__(self, logs: Logs) -> None:
        super().__init__()
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = f"{self.format(record)}\n"
        except Exception as error:
            # The standard library would write the arguments of the line, whatever is in them.
            fields = {"logger": record.name, "error": type(error).__name__}
            text = self._logs.line("error", "log_line_failed", fields)
        self._logs.writer.write(text)


def _on_unraisable(unraisable: "UnraisableHookArgs") -> None:
    _log.error("exception_ignored", what=unraisable.err_msg, exc_info=unraisable.exc_value)


def _on_thread_failed(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_type is not SystemExit:
        name = failed.thread.name if failed.thread is not None else None
        _log.error("thread_failed", thread=name, exc_info=failed.exc_value)


def escape_controls(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Escape control characters, so that nobody's data can pass for a log line of its own.

    A traceback keeps its lines, each behind a bar. (JSON escapes by itself.)
    """
    return {
        _escape(name): _bar(value) if name in {"exception", "stack"} else _escape_text(value)
        for name, value in event.items()
    }


def _console(colors: bool) -> list[Processor]:
    renderer = structlog.dev.ConsoleRenderer(
        colors=colors, exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
    )
    return [escape_controls, renderer]


def _bar(value: object) -> object:
    if not isinstance(value, str):
        return value
    return "\n".join(f"  | {_escape(line)}" for line in value.split("\n"))


def _escape_text(value: object) -> object:
    return _escape(value) if isinstance(value, str) else value


def _escape(text: str) -> str:
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)
