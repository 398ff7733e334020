"""A closed loop of requests over many connections, which checks every reply.

    window requests out -> a reply -> check it -> one more request -> ... -> stop -> drain -> close

The k-th reply of a connection belongs to its k-th request, so that checking is comparing with
what comes next: a reply lost, repeated, changed or out of order is a Violation.
"""

import asyncio
import gc
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from itertools import repeat
from statistics import quantiles
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from protocol import frames as wire
from protocol.codec import FrameError, decode_server_message, encode

from .websocket import ConnectionFailed, RawClient, text_frame

ACK_EVENTS: Final = 32
"""Events are acknowledged in batches of at least so many, with the requests that go out next."""
CONNECT_SECONDS: Final = 60.0
DRAIN_SECONDS: Final = 10.0
LATENCIES_MIN: Final = 2
"""Quantiles need as many."""
CLOSED_NORMALLY: Final = 1000
CONNECTING_MAX: Final = 50
"""Handshakes on their way at one time."""


class Violation(Exception):
    """The server broke a promise: what it sent is not what had to come next."""


class Point(NamedTuple):
    """How many connections, and how many unfinished requests each of them has."""

    connections: int
    window: int

    def __str__(self) -> str:
        return f"{self.connections}x{self.window}"


class Measurement(NamedTuple):
    """What one server did in `seconds`. Latencies from the socket write to the last reply.

    `load_cpu` is the share of its core that the load generator used.
    """

    requests: int
    seconds: float
    p50_seconds: float
    p99_seconds: float
    load_cpu: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


class Requests:
    """Request k of every connection, encoded once: ids are unique in a session only."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.frames: list[bytes] = []
        self.data: list[bytes] = []

    def grow(self, count: int) -> None:
        """Have at least `count` requests."""
        for k in range(len(self.ids), count):
            request_id = str(1_000_000 + k)
            data = encode(f"{request_id} to be or not to be")
            self.ids.append(request_id)
            self.frames.append(
                b'{"type":"request","id":"%b","method":"echo","params":{"text":%b}}'
                % (request_id.encode(), data)
            )
            self.data.append(data)


class Dialect(Protocol):
    """What is said on one connection: who sends what, and what has to come back."""

    path: str
    subprotocol: str | None

    def hello(self) -> bytes | None:
        """Return the message that opens, or None; its answer is the first message received."""
        ...

    def welcomed(self, message: bytes) -> None:
        """Check the answer to `hello`."""
        ...

    def encode(self, first: int, count: int) -> bytes:
        """Return what to write to the socket for requests `first` to `first + count - 1`."""
        ...

    def take(self, messages: Sequence[bytes]) -> int:
        """Check `messages`; return how many requests have ended. Raises Violation."""
        ...

    def bye(self) -> bytes | None:
        """Return the message that makes the server close, or None when the client has to."""
        ...


class Echo:
    """A bare server that sends back what it gets: one message for each request."""

    path = "/"
    subprotocol = None

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._next = 0

    def hello(self) -> None:
        return None

    def welcomed(self, message: bytes) -> None:
        raise Violation(f"nothing was sent, and {message!r} came back")

    def encode(self, first: int, count: int) -> bytes:
        requests = self._requests
        requests.grow(first + count)
        return b"".join(map(text_frame, requests.frames[first : first + count]))

    def take(self, messages: Sequence[bytes]) -> int:
        first = self._next
        last = self._next = first + len(messages)
        if messages != self._requests.frames[first:last]:
            expected = self._requests.frames[first:last]
            raise Violation(f"{expected} was to come next, but this came: {messages}")
        return len(messages)

    def bye(self) -> None:
        return None


class Queue:
    """`queuesystem.v1`: all requests that may go out now are one message."""

    path = "/ws"
    subprotocol = wire.SUBPROTOCOL

    def __init__(self, requests: Requests, token: str) -> None:
        self._requests = requests
        self._token = token
        self._accepted = 0
        self._results = 0
        self._done = 0
        self._seq = 0
        self._acked = 0

    def hello(self) -> bytes:
        client = wire.ClientInfo("benchmark")
        return text_frame(encode(wire.Hello(token=self._token, client=client)))

    def welcomed(self, message: bytes) -> None:
        first = decode_server_message(message)[0]
        if not isinstance(first, wire.Welcome) or first.seq or first.requests:
            raise Violation(f"welcome to a new session was to come next, but this came: {first}")

    def encode(self, first: int, count: int) -> bytes:
        requests = self._requests
        requests.grow(first + count)
        frames = requests.frames[first : first + count]
        if self._seq - self._acked >= ACK_EVENTS:
            self._acked = self._seq
            frames.insert(0, b'{"type":"ack","seq":%d}' % self._seq)
        return text_frame(b"\n".join(frames))

    def take(self, messages: Sequence[bytes]) -> int:
        before = self._done
        for message in messages:
            for frame in decode_server_message(message):
                if not self._is_next(frame):
                    raise Violation(
                        f"{self._done} done, {self._results} results, {self._accepted} accepted, "
                        f"last event {self._seq}, and then this came: {frame}"
                    )
        return self._done - before

    def _is_next(self, frame: wire.ServerFrame | FrameError) -> bool:
        """Tell whether this is what its kind has to say next; each kind counts its own k."""
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
                k = self._results
                self._results = k + 1
                self._seq += 1
                return (
                    k < self._accepted
                    and frame.seq == self._seq
                    and frame.id == requests.ids[k]
                    and frame.index == 0
                    and bytes(frame.data) == requests.data[k]
                )
            case wire.Done():
                k = self._done
                self._done = k + 1
                self._seq += 1
                return (
                    k < self._results
                    and frame.seq == self._seq
                    and frame.id == requests.ids[k]
                    and frame.results == 1
                )
            case _:
                return False

    def bye(self) -> bytes:
        return text_frame(encode(wire.Bye()))


class Meter:
    """What is counted while it runs; outside of that time replies are only checked."""

    def __init__(self) -> None:
        self.running = False
        self.latencies: list[float] = []
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
        if len(self.latencies) < LATENCIES_MIN:
            raise ConnectionFailed(f"no replies in {self._seconds:.1f} seconds: measure longer")
        cuts = quantiles(self.latencies, n=100)
        return Measurement(
            requests=len(self.latencies),
            seconds=self._seconds,
            p50_seconds=cuts[49],
            p99_seconds=cuts[98],
            load_cpu=self._cpu_seconds / self._seconds,
        )


class Loop:
    """The closed loop of one connection. `failure` is told of the first thing that goes wrong."""

    def __init__(
        self, dialect: Dialect, window: int, meter: Meter, failure: "asyncio.Future[None]"
    ) -> None:
        self.unanswered = 0
        self.stopping = False
        self.idle = asyncio.Event()
        self._dialect = dialect
        self._window = window
        self._meter = meter
        self._failure = failure
        self._sent = 0
        self._sent_at: deque[float] = deque()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._client = RawClient(dialect.path, dialect.subprotocol, self._take)

    async def connect(self, host: str, port: int) -> None:
        """Connect and say hello."""
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self._client, host, port)
        await self._client.opened
        self._client.closed.add_done_callback(self._on_closed)
        hello = self._dialect.hello()
        if hello is None:
            self._ready.set_result(None)
        else:
            self._client.write(hello)
            await self._ready

    def start(self) -> None:
        """Send as many requests as the window holds."""
        self._send(self._window)

    async def close(self) -> None:
        """Close, and see that nothing comes that was not asked for."""
        bye = self._dialect.bye()
        if bye is None:
            self._client.close()
        else:
            self._client.write(bye)
        await self._client.closed
        if self._client.close_code != CLOSED_NORMALLY:
            raise ConnectionFailed(f"closed with {self._client.close_code} after the load")

    def abort(self) -> None:
        """End the connection at once."""
        self._client.abort()

    def _send(self, count: int) -> None:
        self._client.write(self._dialect.encode(self._sent, count))
        self._sent += count
        self.unanswered += count
        self._sent_at.extend(repeat(time.perf_counter(), count))

    def _take(self, messages: list[bytes]) -> None:
        now = time.perf_counter()
        try:
            if not self._ready.done():
                self._dialect.welcomed(messages.pop(0))
                self._ready.set_result(None)
            ended = self._dialect.take(messages)
        except Violation as error:
            self._fail(error)
            return
        if ended > self.unanswered:
            self._fail(Violation(f"{ended} requests ended, but {self.unanswered} were on the way"))
        elif ended:
            self._count(ended, now)

    def _count(self, ended: int, now: float) -> None:
        self.unanswered -= ended
        sent_at = self._sent_at
        if self._meter.running:
            self._meter.latencies.extend([now - sent_at.popleft() for _ in range(ended)])
        else:
            for _ in range(ended):
                sent_at.popleft()
        if not self.stopping:
            self._send(ended)
        elif self.unanswered == 0:
            self.idle.set()

    def _on_closed(self, closed: "asyncio.Future[None]") -> None:
        if not (self.stopping and self.unanswered == 0) or closed.exception() is not None:
            code = self._client.close_code
            self._fail(closed.exception() or ConnectionFailed(f"closed with {code} under load"))

    def _fail(self, error: BaseException) -> None:
        if not self._failure.done():
            self._failure.set_exception(error)
        if not self._ready.done():
            self._ready.set_result(None)
        self.abort()


async def measure(
    url: str,
    dialects: Sequence[Dialect],
    window: int,
    *,
    warm_up_seconds: float,
    seconds: float,
    drain_seconds: float = DRAIN_SECONDS,
    at_edges: Callable[[], None] = lambda: None,
) -> Measurement:
    """Put load on `url` with one connection for each of `dialects`; return what was measured.

    `at_edges` is called when the measured time begins, and when it is over. Raises Violation when
    a reply is not what had to come, ConnectionFailed when the connections are not what they
    should be, TimeoutError when they cannot be made in time.
    """
    address = urlsplit(url)
    host, port = address.hostname or "", address.port or 0
    failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    meter = Meter()
    loops = [Loop(dialect, window, meter, failure) for dialect in dialects]
    collecting = gc.isenabled()
    gc.disable()  # its pauses would be counted as the server's; there are no cycles to collect
    try:
        await _or_failure(failure, _connect(loops, host, port), CONNECT_SECONDS)
        for loop in loops:
            loop.start()
        await _or_failure(failure, asyncio.sleep(warm_up_seconds))
        at_edges()
        meter.start()
        await _or_failure(failure, asyncio.sleep(seconds))
        meter.stop()
        at_edges()
        for loop in loops:
            loop.stopping = True
        await _drain(failure, loops, drain_seconds)
    finally:
        if collecting:
            gc.enable()
        failure.cancel()  # what happens to the connections from here on is our own doing
        for loop in loops:
            loop.abort()
    return meter.measurement()


async def _connect(loops: Sequence[Loop], host: str, port: int) -> None:
    room = asyncio.Semaphore(CONNECTING_MAX)

    async def connect(loop: Loop) -> None:
        async with room:
            await loop.connect(host, port)

    await asyncio.gather(*map(connect, loops))


async def _drain(
    failure: "asyncio.Future[None]", loops: Sequence[Loop], timeout_seconds: float
) -> None:
    """Wait for every reply that is due, then close: whatever comes after that is too much."""

    async def drain() -> None:
        for loop in loops:
            if loop.unanswered:
                await loop.idle.wait()
        await asyncio.gather(*(loop.close() for loop in loops))

    try:
        await _or_failure(failure, drain(), timeout_seconds)
    except TimeoutError:
        missing = sum(loop.unanswered for loop in loops)
        raise Violation(
            f"{missing} requests are without a reply {timeout_seconds:g} seconds after the last"
            if missing
            else f"connections are not closed after {timeout_seconds:g} seconds"
        ) from None


async def _or_failure(
    failure: "asyncio.Future[None]",
    work: Coroutine[Any, Any, Any],
    timeout_seconds: float | None = None,
) -> None:
    """Await `work`, but no longer than until the load fails; raises TimeoutError."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait(
            [task, failure], timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if failure.done():
            failure.result()
        if not task.done():
            raise TimeoutError(f"not connected, or not closed, in {timeout_seconds} seconds")
        task.result()
    finally:
        task.cancel()
