"""The names of everything that can go wrong on the wire: error codes and close codes.

An error reply concerns one request and leaves the connection open; a close code ends the
connection. Close codes 4000-4499 mean "reconnect", 4500-4999 mean "do not", so a client needs
no table (SPEC.md, "Close codes").
"""

from enum import IntEnum, StrEnum
from typing import Final


class ErrorCode(StrEnum):
    """Why a request or a frame was refused, or how a request ended when not with `done`."""

    # What the client did wrong.
    BAD_FRAME = "bad_frame"
    UNKNOWN_METHOD = "unknown_method"
    INVALID_PARAMS = "invalid_params"
    ID_CONFLICT = "id_conflict"
    WINDOW_EXCEEDED = "window_exceeded"
    RATE_LIMITED = "rate_limited"
    MESSAGE_TOO_BIG = "message_too_big"
    FORBIDDEN = "forbidden"
    UNAUTHENTICATED = "unauthenticated"
    # How a request that ran (or waited) ended.
    RESULT_TOO_LARGE = "result_too_large"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    HANDLER_ERROR = "handler_error"
    INTERRUPTED = "interrupted"
    # What the server cannot do now.
    JOURNAL_UNAVAILABLE = "journal_unavailable"
    OVERLOADED = "overloaded"


RETRYABLE: Final = frozenset(
    {
        ErrorCode.WINDOW_EXCEEDED,
        ErrorCode.RATE_LIMITED,
        ErrorCode.JOURNAL_UNAVAILABLE,
        ErrorCode.OVERLOADED,
    }
)
"""Codes after which the same request may be sent again unchanged."""


class CloseCode(IntEnum):
    """WebSocket close codes: RFC 6455 section 7.4.1 below 4000, ours above."""

    NORMAL = 1000
    GOING_AWAY = 1001
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    RESTART = 1012
    OVERLOADED = 1013
    TOKEN_EXPIRED = 4401
    HELLO_TIMEOUT = 4408
    SLOW_CONSUMER = 4413
    TOO_MANY_CONNECTIONS = 4429
    PROTOCOL_ERROR = 4500
    UNAUTHENTICATED = 4501
    FORBIDDEN = 4503
    TAKEN_OVER = 4509


def should_reconnect(code: int) -> bool:
    """Tell whether a client whose connection closed with `code` should come back.

    Everything below 4000 but 1000 (normal), 1002, 1003, 1007 and 1009 (the client sent what it
    must not send again) is a passing trouble; above, the range decides.
    """
    if code >= 4000:
        return code < 4500
    return code not in {1000, 1002, 1003, 1007, CloseCode.TOO_BIG}
