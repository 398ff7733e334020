"""Logs to stderr: our own lines and those of libraries take the same way.

    structlog           -> add level, time, exception -> console or JSON -> stderr
    standard `logging`  -> add level, time, exception -> console or JSON -> stderr

Libraries are kept from DEBUG whatever the level: `websockets` and `pymongo` would write tokens
and params there.

A line that nobody takes, on a full disk or in a closed pipe, is dropped: whoever had something to
say goes on.
"""

import logging
import os
import re
import sys
from contextlib import suppress
from typing import Final, Literal, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor

Format = Literal["auto", "json", "console"]
Level = Literal["debug", "info", "warning", "error"]

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""What could start a new line, move the cursor or turn the text of a terminal around."""


def configure(format: Format, level: Level) -> None:  # noqa: A002 - the setting's name
    """Set up all logging of this process; `auto` is console on a terminal and JSON elsewhere."""
    stderr = cast("TextIO", _Stream(sys.stderr))
    console = format == "console" or (format == "auto" and sys.stderr.isatty())
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    render = _console() if console else [structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.INFO), force=True)
    # At INFO it says a line for each connection that opens or closes.
    logging.getLogger("websockets").setLevel(max(threshold, logging.WARNING))


def close() -> None:
    """Drop what stderr did not take: the interpreter would try once more, and exit with 120."""
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


class _Stream:
    """`file`, without its errors."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._file.flush()


def escape_controls(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Escape control characters, so that nobody's data can pass for a log line of its own.

    A traceback keeps its lines, each behind a bar. (JSON escapes by itself.)
    """
    return {
        _escape(name): _bar(value) if name in {"exception", "stack"} else _escape_text(value)
        for name, value in event.items()
    }


def _console() -> list[Processor]:
    renderer = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(),
        exception_formatter=structlog.dev.plain_traceback,
        pad_event_to=0,
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
