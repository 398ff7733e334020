"""What the user of the client holds of one request: its results, one by one or together.

A request that a crash interrupted runs again, as a further attempt whose results begin at index 0.
`async for` gives each index once: it passes over what it gave before, and checks that the replay
gave the same. `events` shows attempts as they are. Nothing gives a gap without saying so.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from functools import partial
from typing import Any
from zlib import crc32

import msgspec
from msgspec import Struct

from protocol.client_call import Call, lost_results
from protocol.client_errors import RESULTS_CHANGED, RequestFailed
from protocol.codes import ErrorCode

_decoder = msgspec.json.Decoder()


class Item(Struct, frozen=True):
    """One result, as `events` gives it; `index` counts the results of one attempt from 0."""

    attempt: int
    index: int
    data: Any


class Restarted(Struct, frozen=True):
    """A crash interrupted the request: results of attempts before `attempt` do not count."""

    attempt: int


class RequestHandle:
    """A request and its results. Results that nobody takes count against the session's bound.

        async for result in handle: ...     each result as it arrives
        result = await handle               the last result, None without one; drops the others
        results = await handle.results()    all results
        async for event in handle.events()  Item or Restarted, for handlers that are not the same
                                            each time

    All of them raise RequestFailed when the request ends with an error, and ConnectionFailed when
    the client gives up; and RequestFailed `bad_frame` for a result that cannot be decoded, which no
    server of ours sends. Cancelling the task that waits does not cancel the request. A handle
    that is thrown away lets its request run and drops its results.
    """

    __slots__ = ("_attempt", "_call", "_cancel", "_checksum", "_next", "_position", "_running")

    def __init__(self, call: Call, cancel: Callable[[Call], None]) -> None:
        self._call = call
        self._cancel = cancel
        # What was given out: so many results, with this checksum.
        self._position = 0
        self._checksum = 0
        # What was taken of the newest attempt, given out or not: the same two numbers.
        self._attempt = 0
        self._next = 0
        self._running = 0

    def __del__(self) -> None:
        self._call.drop()

    def __repr__(self) -> str:
        call = self._call
        return f"<RequestHandle {call.id} n={call.n} attempt={call.attempt} {call.phase.name}>"

    @property
    def id(self) -> str:
        """The id of the request, unique in its session."""
        return self._call.id

    @property
    def n(self) -> int | None:
        """The position of the request in its session; None until the server accepted it."""
        return self._call.n

    @property
    def attempt(self) -> int:
        """Which execution the newest results belong to: 0 before the first, more after crashes."""
        return self._call.attempt

    @property
    def ended(self) -> bool:
        """Tell whether no further result will come."""
        return self._call.ended

    def cancel(self) -> None:
        """Ask the server to end the request; it then ends with RequestFailed `cancelled`.

        A request that waits on this side ends at once; one that has ended stays as it is.
        """
        self._cancel(self._call)

    def __await__(self) -> Generator[Any, None, Any]:
        """Return the last result, None without one; the others are dropped as they come."""
        return self._last().__await__()

    async def _last(self) -> Any:
        call = self._call
        call.drop()
        while not call.ended:
            await self._change()
        if call.error is not None:
            raise call.error.with_traceback(None)
        return None if call.last is None else self._decode(call.last)

    async def results(self) -> list[Any]:
        """Return all results of the attempt that ended. Raises RuntimeError after `async for`."""
        if self._position:
            raise RuntimeError("results of this request were already taken one by one")
        found: list[Any] = []
        async for event in self.events():
            if isinstance(event, Restarted):
                found.clear()
            elif event.index != len(found) and not self._call.live:
                raise self._gap(len(found), event.index)
            else:
                found.append(event.data)
        return found

    def __aiter__(self) -> "RequestHandle":
        """Iterate over the results; going on after a `break` is possible."""
        return self

    async def __anext__(self) -> Any:
        """Return the next result that was not given before.

        Raises RequestFailed also when results are missing (`results_lost`), and when a further
        attempt gave other results than those given out already (`results_changed`).
        """
        call = self._call
        while True:
            while (item := call.take()) is not None:
                if self._is_next(*item):
                    return self._decode(item[1])
            if call.ended:
                self._check_end()
                raise StopAsyncIteration
            await self._change()

    def _is_next(self, index: int, data: bytes) -> bool:
        """Tell whether to give out this result, or whether it was given out before."""
        self._note(index, data)
        if self._next > self._position or self._call.live:
            self._position = self._next
            self._checksum = self._running
            return True
        if self._next == self._position and self._running != self._checksum:
            raise self._changed("gave other results")
        return False

    def _note(self, index: int, data: bytes, *, gaps: bool = False) -> None:
        """Count a result of the newest attempt."""
        attempt = self._call.attempt
        if attempt != self._attempt:
            self._attempt = attempt
            self._next = 0
            self._running = 0
        if index != self._next and not gaps and not self._call.live:
            raise self._gap(self._next, index)
        self._next = index + 1
        self._running = crc32(data, self._running)

    def _check_end(self) -> None:
        call = self._call
        if call.error is not None:
            raise call.error.with_traceback(None)
        if call.expected > self._position and not call.live:
            raise RuntimeError("`await` dropped the results of this request: use results()")
        if call.expected < self._position and not call.live:
            raise self._changed("ended with fewer results")

    async def events(self) -> AsyncIterator[Item | Restarted]:
        """Iterate over the results of every attempt, with Restarted where an older one ends."""
        call = self._call
        while True:
            if self._position and call.attempt != self._attempt:
                self._position = 0
                yield Restarted(call.attempt)
            elif (item := call.take()) is not None:
                self._note(*item, gaps=True)
                self._position = self._next
                self._checksum = self._running
                yield Item(call.attempt, item[0], self._decode(item[1]))
            elif not call.ended:
                await self._change()
            elif call.error is not None:
                raise call.error.with_traceback(None)
            else:
                return

    async def _change(self) -> None:
        """Wait until a result has come, or the end."""
        call = self._call
        future = asyncio.get_running_loop().create_future()
        wake = partial(_resolve, future)
        call.wakeups.append(wake)
        try:
            await future
        except asyncio.CancelledError:
            if wake in call.wakeups:
                call.wakeups.remove(wake)
            raise

    def _decode(self, data: bytes) -> Any:
        try:
            return _decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RequestFailed(
                ErrorCode.BAD_FRAME, f"a result cannot be read: {error}", id=self._call.id
            ) from error

    def _gap(self, first: int, upto: int) -> RequestFailed:
        return lost_results(self._call.id, f"its results {first} to {upto - 1}")

    def _changed(self, what: str) -> RequestFailed:
        return RequestFailed(
            RESULTS_CHANGED,
            f"attempt {self._call.attempt} {what} than the {self._position} given out before: "
            "use events() for a method that is not the same each time",
            id=self._call.id,
        )


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
