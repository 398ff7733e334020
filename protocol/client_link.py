"""One WebSocket of the client: opening it, the greeting, and what its failure means.

Every failure becomes a Loss; Patience says how long to wait then, or that it is over.
"""

import asyncio
import logging
import math
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.datastructures import Headers
from websockets.exceptions import (
    ConnectionClosed,
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
    WebSocketException,
)
from websockets.typing import Subprotocol

from protocol import frames as wire
from protocol.client_errors import ConnectionFailed
from protocol.client_rules import backoff
from protocol.codec import FrameError, decode_server_message
from protocol.codes import CloseCode, should_reconnect

OPEN_SECONDS: Final = 10.0
"""How long one attempt to open a connection may take, without the greeting,"""
WELCOME_SECONDS: Final = 10.0
"""and how long the server may take to answer `hello`."""
RECONNECT_BASE_SECONDS: Final = 0.1
"""The next attempt comes after a random time up to this, doubled with each failure,"""
RECONNECT_CAP_SECONDS: Final = 10.0
"""and up to this at most."""
EXPECTED_SECONDS: Final = 30.0
"""So long after the time that `goaway` named the server is expected any moment,"""
EXPECTED_CAP_SECONDS: Final = 1.0
"""and attempts follow each other within this at most."""
STEADY_SECONDS: Final = 1.0
"""A connection that stood for less does not count as an end of the failures."""
TOKENS_REFUSED_MAX: Final = 3
"""So many tokens in a row that the server calls expired mean that the clocks differ."""

_websocket_log = logging.getLogger(f"{__name__}.websocket")
_websocket_log.setLevel(logging.INFO)  # at DEBUG it shows what is sent, tokens too
_RETRYABLE_STATUS: Final = frozenset({408, 429, 500, 502, 503, 504})


class Loss(Exception):
    """A connection was not made, or is gone; `fatal` tells not to come back.

    `retry_after_seconds` is how long the server asked to stay away (`Retry-After`), else 0.
    """

    def __init__(
        self,
        message: str,
        code: int | None = None,
        *,
        fatal: bool = False,
        retry_after_seconds: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.fatal = fatal
        self.retry_after_seconds = retry_after_seconds


def loss_of(error: Exception) -> Loss:
    """Return what an exception of `websockets` or of the socket means."""
    match error:
        case ConnectionClosed():
            close = error.rcvd or error.sent
            code = 1006 if close is None else int(close.code)
            reason = "connection lost" if close is None else close.reason or "connection closed"
            if error.rcvd is None and code == CloseCode.TOO_BIG:
                reason = f"the server sent too big a message ({reason})"
            return Loss(f"{reason} (code {code})", code, fatal=not should_reconnect(code))
        case InvalidStatus():
            status = error.response.status_code
            text = bytes(error.response.body or b"")[:200].decode(errors="replace").strip()
            message = f"HTTP status {status} instead of a WebSocket" + (text and f": {text}")
            return Loss(
                message,
                status,
                fatal=status not in _RETRYABLE_STATUS,
                retry_after_seconds=_retry_after(error.response.headers),
            )
        case ssl.SSLCertVerificationError():
            return Loss(str(error), fatal=True)
        case InvalidMessage() | OSError():
            return Loss(str(error) or "no answer in time")  # TimeoutError has no text
        case _:
            return Loss(str(error) or type(error).__name__, fatal=True)


def _retry_after(headers: Headers) -> float:
    """Return the seconds that `Retry-After` names (RFC 9110 section 10.2.3); dates count as 0."""
    values = headers.get_all("Retry-After")
    return float(values[0]) if values and values[0].isascii() and values[0].isdecimal() else 0.0


async def dial(url: str, *, max_message_bytes: int, tls: ssl.SSLContext | None) -> ClientConnection:
    """Open a WebSocket. Raises Loss."""
    # The argument may not even be there for a URL without TLS.
    more: dict[str, Any] = {} if tls is None else {"ssl": tls}
    try:
        connection = await open_websocket(
            url,
            # WebSocket
            subprotocols=[Subprotocol(wire.SUBPROTOCOL)],
            compression=None,
            # HTTP
            proxy=None,
            # Timeouts
            open_timeout=OPEN_SECONDS,
            ping_interval=20,
            ping_timeout=20,
            close_timeout=5,
            # Limits
            max_size=max_message_bytes,
            max_queue=16,
            write_limit=64 * 1024,
            # Logging
            logger=_websocket_log,
            **more,
        )
    except InvalidURI as error:
        raise Loss(str(error), fatal=True) from error
    except (WebSocketException, OSError) as error:
        raise loss_of(error) from error
    if connection.subprotocol != wire.SUBPROTOCOL:
        connection.transport.abort()
        raise Loss(f"the server does not speak {wire.SUBPROTOCOL}", fatal=True)
    return connection


async def greet(
    connection: ClientConnection, hello: bytes
) -> tuple[wire.Welcome, Sequence[wire.ServerFrame | FrameError]]:
    """Say `hello`; return the answer, and the frames that came in the same message.

    Raises ConnectionClosed, and TimeoutError.
    """
    try:
        async with asyncio.timeout(WELCOME_SECONDS):
            await connection.send(hello, text=True)
            while True:
                frames = decode_server_message(await connection.recv(decode=False))
                for position, frame in enumerate(frames, start=1):
                    if isinstance(frame, wire.Welcome):
                        return frame, frames[position:]
    except TimeoutError:
        raise TimeoutError("the server did not answer hello in time") from None


class Patience:
    """When to try again, and when to give up. Times in seconds, of any one clock.

    `first_seconds` bounds the time until the first welcome, `later_seconds` that of each outage
    after it; `tokens` is how many tokens in a row may be refused as expired.
    """

    def __init__(
        self,
        *,
        now: float,
        first_seconds: float,
        later_seconds: float,
        tokens: int,
        random: Callable[[], float],
    ) -> None:
        self._since: float | None = now
        self._limit_seconds = first_seconds
        self._later_seconds = later_seconds
        self._tokens = tokens
        self._random = random
        self._welcomed_at: float | None = None
        self._expected_at = -math.inf
        self._failures = 0
        self._refused = 0

    def welcomed(self, now: float) -> None:
        """Note that there is a connection."""
        self._welcomed_at = now
        self._since = None
        self._limit_seconds = self._later_seconds
        self._refused = 0

    def left(self, now: float) -> float:
        """Return the seconds until it gives up, if there is no connection until then."""
        return (
            self._limit_seconds if self._since is None else self._since + self._limit_seconds - now
        )

    def after(self, loss: Loss, now: float, wish_seconds: float | None = None) -> float:
        """Return the seconds to wait; `wish_seconds` is what the server asked for.

        Raises ConnectionFailed when it is over.
        """
        if loss.code == CloseCode.TOKEN_EXPIRED:
            self._refused += 1
        if loss.fatal or self._refused >= self._tokens:
            raise ConnectionFailed(str(loss), loss.code)
        if self._welcomed_at is not None:
            if now - self._welcomed_at >= STEADY_SECONDS:
                self._failures = 0
            self._welcomed_at = None
        if self._since is None:
            self._since = now
        left = self.left(now)
        if left <= 0:
            raise ConnectionFailed(f"gave up after {self._limit_seconds:g} s: {loss}", loss.code)
        if wish_seconds is not None:
            self._expected_at = now + wish_seconds
            return min(wish_seconds, left)
        expected = now - self._expected_at < EXPECTED_SECONDS
        cap = EXPECTED_CAP_SECONDS if expected else RECONNECT_CAP_SECONDS
        delay = backoff(self._failures, RECONNECT_BASE_SECONDS, cap, self._random)
        self._failures += 1
        # The random part stays: all who were refused at one time must not come back at one time.
        delay += loss.retry_after_seconds
        return min(delay, left)
