"""A closed loop of requests over many connections, which checks every reply.

    window requests out -> a reply -> check it -> one more request -> ... -> stop -> drain -> close

What has to come is a matter of dialects.py; what was counted is in meter.py.
"""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager
from itertools import repeat
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from .dialects import Dialect, Violation
from .meter import Measurement, Meter
from .websocket import ConnectionFailed, RawClient

CONNECT_SECONDS: Final = 60.0
DRAIN_SECONDS: Final = 10.0
FILL_SECONDS: Final = 120.0
FILL_POLL_SECONDS: Final = 0.02
CLOSED_NORMALLY: Final = 1000
CONNECTING_MAX: Final = 50
"""Handshakes on their way at one time, where that is not what is measured."""


class Point(NamedTuple):
    """How many connections, and how many unfinished requests each of them has."""

    connections: int
    window: int

    def __str__(self) -> str:
        return f"{self.connections}x{self.window}"


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
        self._came = 0
        self._ended = 0
        self._sent_at: list[float] = []
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
        self._client.write(self._dialect.encode(len(self._sent_at), count))
        self.unanswered += count
        self._sent_at.extend(repeat(time.perf_counter(), count))

    def _take(self, messages: list[bytes]) -> None:
        now = time.perf_counter()
        try:
            if not self._ready.done():
                self._dialect.welcomed(messages.pop(0))
                self._ready.set_result(None)
            came, ended = self._dialect.take(messages)
        except Violation as error:
            self._fail(error)
            return
        if came:
            self._count_results(came, now)
        if ended > self.unanswered:
            self._fail(Violation(f"{ended} requests ended, but {self.unanswered} were on the way"))
        elif ended:
            self._count_ends(ended, now)

    def _count_results(self, came: int, now: float) -> None:
        results = self._dialect.results
        before = self._came
        self._came = before + came
        meter = self._meter
        if meter.running:
            meter.results += came
            # The requests of which this is the first that comes.
            began = self._sent_at[-(-before // results) : -(-self._came // results)]
            meter.first_seconds.extend([now - at for at in began])

    def _count_ends(self, ended: int, now: float) -> None:
        before = self._ended
        self._ended = before + ended
        self.unanswered -= ended
        if self._meter.running:
            sent_at = self._sent_at[before : self._ended]
            self._meter.last_seconds.extend([now - at for at in sent_at])
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


class Crowd:
    """The connections to one server; `failure` is set by the first thing that goes wrong."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self.loops: list[Loop] = []
        self.meter = Meter()
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._host, self._port = address.hostname or "", address.port or 0

    async def connect(
        self, dialects: Sequence[Dialect], window: int, *, at_a_time: int = CONNECTING_MAX
    ) -> None:
        """Add a connection for each of `dialects`, ready for requests when this returns."""
        room = asyncio.Semaphore(at_a_time)

        async def connect(loop: Loop) -> None:
            async with room:
                await loop.connect(self._host, self._port)

        loops = [Loop(dialect, window, self.meter, self.failure) for dialect in dialects]
        self.loops += loops
        await self.unless_it_fails(asyncio.gather(*map(connect, loops)), CONNECT_SECONDS)

    async def drain(self, timeout_seconds: float) -> None:
        """Wait for every reply that is due. Raises Violation when some do not come."""
        for loop in self.loops:
            loop.stopping = True
        waits = [loop.idle.wait() for loop in self.loops if loop.unanswered]
        try:
            await self.unless_it_fails(asyncio.gather(*waits), timeout_seconds)
        except TimeoutError:
            missing = sum(loop.unanswered for loop in self.loops)
            raise Violation(
                f"{missing} requests are without a reply {timeout_seconds:g} s after the last"
            ) from None

    async def close(self, timeout_seconds: float) -> None:
        """Close all connections: whatever comes after the last reply is too much."""
        closing = asyncio.gather(*(loop.close() for loop in self.loops))
        try:
            await self.unless_it_fails(closing, timeout_seconds)
        except TimeoutError:
            raise Violation(f"connections are not closed after {timeout_seconds:g} s") from None

    def check(self) -> None:
        """Raise what went wrong so far, if anything did."""
        if self.failure.done():
            self.failure.result()

    def abort(self) -> None:
        """End all connections at once; what happens to them from here on is our own doing."""
        self.failure.cancel()
        for loop in self.loops:
            loop.abort()

    async def unless_it_fails(
        self, work: Awaitable[Any], timeout_seconds: float | None = None
    ) -> None:
        """Await `work`, but no longer than until the load fails; raises TimeoutError."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait(
                [task, self.failure], timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            self.check()
            if not task.done():  # so there was a timeout
                raise TimeoutError(f"not ready in {timeout_seconds:g} seconds")
            task.result()
        finally:
            task.cancel()


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

    async def work(crowd: Crowd) -> None:
        await asyncio.sleep(warm_up_seconds)
        at_edges()
        crowd.meter.start()
        await asyncio.sleep(seconds)
        crowd.meter.stop()
        at_edges()

    crowd = Crowd(url)
    await _load(crowd, dialects, window, work, drain_seconds)
    return crowd.meter.measurement()


async def fill(url: str, dialects: Sequence[Dialect], window: int, requests: int) -> None:
    """Have at least `requests` done, then drop the connections: their sessions are left open.

    Raises as `measure` does.
    """

    async def work(crowd: Crowd) -> None:
        crowd.meter.start()
        async with asyncio.timeout(FILL_SECONDS):
            while len(crowd.meter.last_seconds) < requests:  # noqa: ASYNC110 - costs less
                await asyncio.sleep(FILL_POLL_SECONDS)

    await _load(Crowd(url), dialects, window, work, DRAIN_SECONDS, leave_open=True)


async def _load(
    crowd: Crowd,
    dialects: Sequence[Dialect],
    window: int,
    work: Callable[[Crowd], Coroutine[Any, Any, None]],
    drain_seconds: float,
    *,
    leave_open: bool = False,
) -> None:
    with _no_garbage_collection():
        try:
            await crowd.connect(dialects, window)
            for loop in crowd.loops:
                loop.start()
            await crowd.unless_it_fails(work(crowd))
            await crowd.drain(drain_seconds)
            if not leave_open:
                await crowd.close(drain_seconds)
        finally:
            crowd.abort()


@contextmanager
def _no_garbage_collection() -> Generator[None]:
    """Its pauses would be counted as the server's; there are no cycles to collect."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
