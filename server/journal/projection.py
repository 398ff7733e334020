"""The request log operators query, built from the logs by a background task that may lag.

    read commits after the watermark -> follow each request from `accepted` to its end
    -> buckets of what finished, and what has not, by session -> the history, with the watermark

What has not finished is kept in memory from chunk to chunk, so that a row is complete when its
request finishes and nothing is ever merged in the database. The memory is a cache of what the
history says at the watermark: sessions that are not in it are looked up there.

The log of the living process need not be read: its sessions say themselves what has ended
(`Projector.note`). Reading is for the logs of others, and for what was missed.
"""

import asyncio
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import aclosing, suppress
from typing import Final, Protocol

from server.journal.buckets import Row, pack_finished, pack_unfinished, unpack_rows
from server.journal.entries import Accepted, Opened, Started
from server.journal.log import LogReader
from server.journal.outline import (
    EndOutline,
    FinishedOutline,
    Outline,
    RequestOutline,
    decode_outline,
    decode_requests,
)
from server.journal.state import RequestState, SessionState
from server.journal.store import Bucket, Failed, Packed, Unfinished

CHUNK_REQUESTS: Final = 20_000
"""A chunk ends with the commit in which so many requests were accepted or finished: so many rows
are written in a few milliseconds, and an append may have to wait for them."""
PAUSE_REQUESTS: Final = 1000
"""So many requests are followed at a time; then the event loop has its turn."""
NOTED_ROWS_ENOUGH: Final = 10_000
"""So many rows are worth to be written: in a few milliseconds, while they are in the cache."""
NOTED_ROWS_MAX: Final = 200_000
"""So many rows may wait to be written; beyond that they are read from the log later."""
KNOWN_SESSIONS_MAX: Final = 20_000
"""Of more sessions, those that have nothing unfinished are looked up when they are met again."""

KEPT_BYTES: Final = 16 * 1024
"""The params of a failed request, and the text of its error, are kept up to this length each."""
FAILED_BYTES: Final = 512
"""What a failed request is counted for beside these."""
FAILED_BYTES_MAX: Final = 4 * 1024 * 1024
"""So much of failed requests may wait to be written; of further ones the params are not kept."""

_Open = tuple[str | None, str | None, float | None, int, float | None]
"""An unfinished request: id, method, accepted_at, attempt, started_at."""
_UNKNOWN: Final[_Open] = (None, None, None, 0, None)


class _Session:
    """What is known of a session's requests.

    `unfinished` is by n, `stored` what of it the history has (packed); `finished` is what
    finished since the last chunk, in that order.
    """

    __slots__ = ("finished", "stored", "subject", "unfinished")

    def __init__(self, subject: str | None = None, stored: str = "") -> None:
        self.subject = subject
        self.stored = stored
        self.unfinished: dict[int, _Open] = {
            row[0]: (row[1], row[2], row[6], row[4] or 0, row[7]) for row in unpack_rows(stored)
        }
        self.finished: list[Row] = []

    def waiting_and_running(self) -> list[Row]:
        """Return the rows of what is unfinished."""
        return [
            (
                n,
                request_id,
                method,
                "running" if attempt else "waiting",
                attempt,
                None,
                accepted_at,
                started_at,
                None,
            )
            for n, (request_id, method, accepted_at, attempt, started_at) in self.unfinished.items()
        ]

    def accept(self, entry: Accepted) -> int:
        """Take in requests that wait; return their number."""
        self.subject = entry.subject
        unfinished = self.unfinished
        time = entry.time
        n = entry.n
        for frame in decode_requests(entry.frames):
            if type(frame) is RequestOutline:
                unfinished[n] = (frame.id, frame.method, time, 0, None)
                n += 1
        return n - entry.n

    def start(self, entry: Started) -> None:
        """Take in that a request runs."""
        request_id, method, accepted_at, _, _ = self.unfinished.get(entry.n, _UNKNOWN)
        self.unfinished[entry.n] = (request_id, method, accepted_at, entry.attempt, entry.time)

    def finish(self, ends: Sequence[EndOutline]) -> None:
        """Take in that requests ended."""
        pop = self.unfinished.pop
        append = self.finished.append
        for end in ends:
            n = end.n
            row = pop(n, _UNKNOWN)
            append(
                (
                    n,
                    row[0],
                    row[1],
                    end.outcome,
                    end.attempt,
                    end.results,
                    row[2],
                    end.started or row[4],
                    end.time,
                )
            )


class Live(Protocol):
    """A session of this process (session.py)."""

    @property
    def state(self) -> SessionState:
        """What the log says of it."""
        ...

    def unended(self) -> list[RequestState]:
        """Return the requests whose acceptance is durable and whose end is not."""
        ...


class Ledger(Protocol):
    """What a projection needs of a History (store.py has what each of these does)."""

    async def resume(self, owner: str) -> int:
        """See History."""
        ...

    async def unfinished(self, sessions: Sequence[str]) -> Sequence[Packed]:
        """See History."""
        ...

    async def project(
        self,
        owner: str,
        upto: int,
        finished: Sequence[Bucket],
        unfinished: Sequence[Unfinished],
        failed: Sequence[Failed] = (),
    ) -> None:
        """See History."""
        ...


class Projected(Protocol):
    """Where a projection reads and what it writes: a Store, or a part of one (tail.py)."""

    @property
    def log_reader(self) -> LogReader:
        """The logs."""
        ...

    @property
    def history(self) -> Ledger:
        """What they are projected into."""
        ...


class Projector:
    """Brings the history up to date with `owner`'s log, again and again.

    Nobody else may project that log at the same time. `told_seq` is for the log of this process:
    it returns the commit up to which `note` was called. `reached` is the last commit that the
    history is known to have.
    """

    def __init__(
        self, store: Projected, owner: str, told_seq: Callable[[], int] | None = None
    ) -> None:
        self.reached = 0
        self._log = store.log_reader
        self._history = store.history
        self._owner = owner
        self._told_seq = told_seq
        # What was noted of the commits after _noted_from; None while something is missing.
        self._noted_from: int | None = None if told_seq is None else told_seq()
        self._noted: dict[str, tuple[Live, list[Row]]] = {}
        self._noted_rows = 0
        # What ended with an error and is not written yet.
        self._failed: list[Failed] = []
        self._failed_bytes = 0
        self._enough = asyncio.Event()
        self._reached: int | None = None
        self._sessions: dict[str, _Session] = {}
        self._touched: dict[str, _Session] = {}
        self._requests = 0

    async def run(self) -> int:
        """Project what is new up to the end of the log; return the seq reached."""
        try:
            if self._reached is None:
                self._reached = self.reached = await self._history.resume(self._owner)
            if self._told_seq is None:
                return await self._run(self._reached, None)
            if self._noted_from is None:
                self._noted_from = self._told_seq()
            if self._reached < self._noted_from:
                await self._run(self._reached, self._noted_from)
            return await self._write_noted(self._told_seq)
        except BaseException:
            # What of the chunk came through is not known: begin again from what the history says.
            self._forget_noted()
            self._reached = None
            self._sessions.clear()
            self._touched.clear()
            self._requests = 0
            raise

    # What the sessions say

    def note(self, session: Live, ended: Sequence[RequestState]) -> None:
        """Take note that a commit of `session` is durable, and of what `ended` with it."""
        for request in [request for request in ended if request.kept_params is not None]:
            self._keep(session.state, request)
        if self._noted_from is None:
            return
        name = session.state.id
        noted = self._noted.get(name)
        if noted is None:
            noted = self._noted[name] = (session, [])
        if ended:
            noted[1].extend(_rows(ended))
            self._noted_rows += len(ended)
            if self._noted_rows >= NOTED_ROWS_ENOUGH:
                self._enough.set()
            if self._noted_rows > NOTED_ROWS_MAX:
                self._forget_noted()  # the log has it all

    def _keep(self, session: SessionState, request: RequestState) -> None:
        """Keep what it takes to run a failed request again, unless that is too much."""
        params = request.kept_params
        request.kept_params = None
        if params is None or len(params) > KEPT_BYTES:
            return
        error = request.error if len(request.error) <= KEPT_BYTES else b""
        size = len(params) + len(error) + FAILED_BYTES
        if self._failed_bytes + size > FAILED_BYTES_MAX:
            return
        self._failed_bytes += size
        self._failed.append(
            Failed(
                session=session.id,
                n=request.n,
                subject=session.subject,
                scope=request.scope,
                method=request.method,
                params=bytes(params).decode(),
                timeout=request.timeout,
                error=error.decode(),
                finished_at=request.ended,
            )
        )

    async def wait(self, seconds: float) -> None:
        """Wait until it is worth to run again: until much was noted, but not for longer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._enough.wait()

    def _forget_noted(self) -> None:
        self._noted_from = None
        self._take_noted()

    def _take_noted(self) -> dict[str, tuple[Live, list[Row]]]:
        noted, self._noted = self._noted, {}
        self._noted_rows = 0
        self._enough.clear()
        return noted

    async def _write_noted(self, told_seq: Callable[[], int]) -> int:
        if self._noted_from is None:
            return self._reached or 0  # too much came meanwhile: the log is read next time
        # All of this belongs to one moment, that of the commit `upto`.
        upto = self._noted_from = told_seq()
        noted = self._take_noted()
        unfinished = {
            name: {request.n: _open(request) for request in live.unended()}
            for name, (live, _) in noted.items()
        }
        await self._meet(noted.keys() - self._sessions.keys())
        for name, (live, rows) in noted.items():
            session = self._touched[name] = self._sessions[name]
            session.subject = live.state.subject
            session.finished = rows
            session.unfinished = unfinished[name]
        if upto != self._reached:
            await self._write(upto)
        return upto

    # What the log says

    async def _run(self, last: int, until: int | None) -> int:
        """Project the commits after `last`, up to `until` or the end; return the last of them."""
        pause_at = PAUSE_REQUESTS
        async with aclosing(self._log.read(self._owner, last)) as commits:
            async for commit in commits:
                if until is not None and commit.seq > until:
                    break
                await self._follow(decode_outline(commit.data))
                last = commit.seq
                if self._requests >= CHUNK_REQUESTS:
                    await self._write(last)
                    pause_at = PAUSE_REQUESTS
                elif self._requests >= pause_at:
                    await asyncio.sleep(0)
                    pause_at = self._requests + PAUSE_REQUESTS
        if last != self._reached:
            await self._write(last)
        return last

    # Follow

    async def _follow(self, entries: Sequence[Outline]) -> None:
        followed = self._follow_known(entries)
        while followed < len(entries):
            entries = entries[followed:]
            await self._meet({entry.session for entry in entries} - self._sessions.keys())
            followed = self._follow_known(entries)

    async def _meet(self, sessions: AbstractSet[str]) -> None:
        """Get to know `sessions`."""
        if not sessions:
            return
        for piece in await self._history.unfinished(list(sessions)):
            self._sessions[piece.session] = _Session(piece.subject, piece.packed)
        for name in sessions:
            self._sessions.setdefault(name, _Session())

    def _follow_known(self, entries: Sequence[Outline]) -> int:
        """Take in `entries` up to the first of a session that is not known; return their number."""
        known = self._sessions
        for position, entry in enumerate(entries):
            name = entry.session
            if name not in known:
                if type(entry) is not Opened:
                    return position
                known[name] = _Session(entry.subject)
            session = self._touched[name] = known[name]
            # Not `match`: this runs for every request there is.
            if type(entry) is FinishedOutline:
                session.finish(entry.ends)
                self._requests += len(entry.ends)
            elif type(entry) is Accepted:
                self._requests += session.accept(entry)
            elif type(entry) is Started:
                session.start(entry)
        return len(entries)

    # Write

    async def _write(self, upto: int) -> None:
        finished: list[Bucket] = []
        unfinished: list[Unfinished] = []
        pause = PAUSE_REQUESTS
        for name, session in self._touched.items():
            if session.finished:
                finished += pack_finished(name, session.subject, session.finished)
                pause -= len(session.finished)
                session.finished = []
            rows = session.waiting_and_running()
            piece = pack_unfinished(name, session.subject, rows, session.stored)
            if piece.packed != session.stored:
                unfinished.append(piece)
                session.stored = piece.packed
            if pause <= 0:
                await asyncio.sleep(0)
                pause = PAUSE_REQUESTS
        failed, size = self._failed[:], self._failed_bytes
        await self._history.project(self._owner, upto, finished, unfinished, failed)
        self._reached = self.reached = upto
        del self._failed[: len(failed)]
        self._failed_bytes -= size
        self._touched.clear()
        self._requests = 0
        if len(self._sessions) > KNOWN_SESSIONS_MAX:
            self._sessions = {k: v for k, v in self._sessions.items() if v.unfinished}


def _rows(requests: Sequence[RequestState]) -> list[Row]:
    return [
        (
            request.n,
            request.id,
            request.method,
            request.outcome or "",
            request.attempt,
            request.total,
            request.time,
            request.started or None,
            request.ended,
        )
        for request in requests
    ]


def _open(request: RequestState) -> _Open:
    # One that a crash interrupted, and that has not run again, waits.
    attempt, started = (request.attempt, request.started) if request.started else (0, None)
    return request.id, request.method, request.time, attempt, started


async def project(store: Projected, owner: str) -> int:
    """Bring the history up to the end of `owner`'s log, once; return the seq reached."""
    return await Projector(store, owner).run()
