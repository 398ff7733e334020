"""What is said on one connection, and the check that nothing else comes back.

The k-th reply of a connection belongs to its k-th request, so that checking is comparing with
what comes next: a reply lost, repeated, changed or out of order is a Violation.

Both sides are treated alike: what may go out at one moment is one write to the socket. For the
bare server it holds one message per request; in `queuesystem.v1` one message may hold them all.
"""

from collections.abc import Sequence
from typing import Final, Protocol

from protocol import frames as wire
from protocol.codec import FrameError, decode_server_message, encode

from .requests import Messages, Requests
from .websocket import text_frame

ACK_EVENTS: Final = 32
"""Events are acknowledged in batches of at least so many, with the requests that go out next."""
SHOWN: Final = 300
"""Characters of what came that are shown when it was wrong."""


class Violation(Exception):
    """The server broke a promise: what it sent is not what had to come next."""


class Dialect(Protocol):
    """Who sends what, and what has to come back. `results` is how many replies a request has."""

    path: str
    subprotocol: str | None
    results: int

    def hello(self) -> bytes | None:
        """Return the message that opens, or None; its answer is the first message received."""
        ...

    def welcomed(self, message: bytes) -> None:
        """Check the answer to `hello`."""
        ...

    def encode(self, first: int, count: int) -> bytes:
        """Return what to write to the socket for requests `first` to `first + count - 1`."""
        ...

    def take(self, messages: Sequence[bytes]) -> tuple[int, int]:
        """Check `messages`; return the results that came and the requests that have ended.

        Raises Violation.
        """
        ...

    def bye(self) -> bytes | None:
        """Return the message that makes the server close, or None when the client has to."""
        ...


class Echo:
    """A bare server that sends back what it gets: one message for each request."""

    path = "/"
    subprotocol: str | None = None
    results = 1

    def __init__(self, messages: Messages) -> None:
        self._messages = messages
        self._next = 0

    def hello(self) -> None:
        return None

    def welcomed(self, message: bytes) -> None:
        raise Violation(f"nothing was sent, and this came back: {_short(message)}")

    def encode(self, first: int, count: int) -> bytes:
        self._messages.grow(first + count)
        return b"".join(self._messages.wires[first : first + count])

    def take(self, messages: Sequence[bytes]) -> tuple[int, int]:
        first = self._next
        count = len(messages)
        self._next = first + count
        expected = self._messages.frames[first : self._next]
        if messages != expected:
            raise Violation(
                f"{_short(expected)} was to come next, but this came: {_short(messages)}"
            )
        return count, count

    def bye(self) -> None:
        return None


class Queue:
    """`queuesystem.v1`: all requests that may go out now are one message."""

    path = "/ws"
    subprotocol: str | None = wire.SUBPROTOCOL

    def __init__(self, requests: Requests, token: str, *, ack_events: int = ACK_EVENTS) -> None:
        self.results = requests.results
        self.welcome: wire.Welcome | None = None
        self._requests = requests
        self._token = token
        self._ack_events = ack_events
        self._accepted = 0
        self._came = 0
        self._done = 0
        self._seq = 0
        self._acked = 0

    def hello(self) -> bytes:
        client = wire.ClientInfo("benchmark")
        return text_frame(encode(wire.Hello(token=self._token, client=client)))

    def welcomed(self, message: bytes) -> None:
        first = decode_server_message(message)[0]
        if not isinstance(first, wire.Welcome) or first.seq or first.requests:
            raise Violation(f"a new session's welcome was to come, but this came: {_short(first)}")
        self.welcome = first

    def encode(self, first: int, count: int) -> bytes:
        requests = self._requests
        requests.grow(first + count)
        frames = requests.frames[first : first + count]
        if self._seq - self._acked >= self._ack_events:
            self._acked = self._seq
            frames.insert(0, b'{"type":"ack","seq":%d}' % self._seq)
        return text_frame(b"\n".join(frames))

    def take(self, messages: Sequence[bytes]) -> tuple[int, int]:
        came = self._came
        done = self._done
        for message in messages:
            for frame in decode_server_message(message):
                if not self._is_next(frame):
                    raise Violation(
                        f"{self._done} done, {self._came} results, {self._accepted} accepted, "
                        f"last event {self._seq}, and then this came: {_short(frame)}"
                    )
        return self._came - came, self._done - done

    def _is_next(self, frame: wire.ServerFrame | FrameError) -> bool:
        """Tell whether this is what its kind has to say next; each kind counts its own."""
        requests = self._requests
        match frame:
            case wire.Accepted():
                k = self._accepted
                self._accepted = k + 1
                return (
                    frame.n == k + 1
                    and k < len(requests.ids)
                    and frame.id == requests.ids[k]
                    and not frame.duplicate
                )
            case wire.Result():
                r = self._came
                self._came = r + 1
                self._seq += 1
                k, index = divmod(r, self.results)
                return (
                    k < self._accepted
                    and frame.seq == self._seq
                    and frame.id == requests.ids[k]
                    and frame.index == index
                    and bytes(frame.data) == requests.data[r]
                )
            case wire.Done():
                k = self._done
                self._done = k + 1
                self._seq += 1
                return (
                    (k + 1) * self.results <= self._came
                    and frame.seq == self._seq
                    and frame.id == requests.ids[k]
                    and frame.results == self.results
                )
            case _:
                return False

    def bye(self) -> bytes:
        return text_frame(encode(wire.Bye()))


def _short(what: object) -> str:
    return repr(what)[:SHOWN]
