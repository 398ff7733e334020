"""A store: one place (a SQLite file, a MongoDB database) that holds logs, users and history."""

from collections.abc import AsyncGenerator, Sequence
from typing import Final, Protocol

from msgspec import Struct

from server.journal.log import Log, LogReader

FAILED: Final = "failed"
"""As the `state` of a Query: every request that ended with an error, whatever its code."""


FAILURES_MAX: Final = 10_000
"""Of so many requests that ended with an error the params are kept: 160 MB at the very most."""


class User(Struct, frozen=True):
    """Somebody who may fetch a token with a password. `scope` is space separated (RFC 6749 3.3)."""

    name: str
    password_hash: str
    scope: str
    created_at: float


class Users(Protocol):
    """The users, by name."""

    async def put(self, user: User) -> None:
        """Add or replace the user of that name."""
        ...

    async def get(self, name: str) -> User | None:
        """Return the user, or None."""
        ...

    async def remove(self, name: str) -> bool:
        """Remove the user; tell whether there was one."""
        ...

    async def list(self) -> Sequence[User]:
        """Return all users, by name."""
        ...


class HistoryRow(Struct, kw_only=True):
    """What is known of one request, keyed by (session, n); None is what is not known (yet).

    Times are Unix times in seconds. `state` is waiting, running, done or an error code.
    """

    session: str
    n: int
    state: str
    id: str | None = None
    method: str | None = None
    subject: str | None = None
    attempt: int | None = None
    results: int | None = None
    accepted_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None


class Query(Struct, kw_only=True, frozen=True):
    """Which requests are asked for: the `limit` newest that match everything that is given.

    `state` is one of a HistoryRow, or FAILED. `accepted_after` and `accepted_before` are Unix
    times.
    """

    session: str | None = None
    n: int | None = None
    subject: str | None = None
    state: str | None = None
    method: str | None = None
    accepted_after: float | None = None
    accepted_before: float | None = None
    limit: int = 100


class Packed(Struct, kw_only=True, frozen=True):
    """Requests of one session in one piece of JSON text (see buckets.py).

    `accepted_at` is that of the newest of them, 0.0 when it is not known.
    """

    session: str
    subject: str | None
    accepted_at: float
    packed: str


class Bucket(Packed, kw_only=True, frozen=True):
    """Requests that finished; they never change again.

    (`session`, `first`) names the bucket, and is the same whenever the same part of a log is
    projected. `finished_at` is when the last of them finished, `states` which ends there are.
    """

    first: int
    count: int
    states: list[str]
    finished_at: float


class Unfinished(Packed, kw_only=True, frozen=True):
    """All requests of a session that have not finished; `packed` is empty when there are none.

    `before` is what `packed` was for this session until now, for stores that cannot write
    everything at once.
    """

    before: str


class Failed(Struct, kw_only=True, frozen=True):
    """What it takes to run a request again that ended with an error.

    `params` and `error` are the JSON of the wire; `error` is empty when it was too long to keep.
    """

    session: str
    n: int
    subject: str
    scope: str
    method: str
    params: str
    timeout: float | None
    error: str
    finished_at: float


class History(Protocol):
    """The request log operators query: a projection of the logs that may lag behind them.

    A log is projected by one Projector at a time, and after the logs whose sessions it claimed.
    """

    async def projected(self, owner: str) -> int:
        """Return the seq up to which `owner`'s log is in the history; changes nothing."""
        ...

    async def resume(self, owner: str) -> int:
        """Return the seq up to which `owner`'s log is in the history; 0 when nothing is.

        What a `project` that did not come to its end left behind is undone, as far as it has to.
        """
        ...

    async def unfinished(self, sessions: Sequence[str]) -> Sequence[Packed]:
        """Return what has not finished of those `sessions` that have something unfinished."""
        ...

    async def project(
        self,
        owner: str,
        upto: int,
        finished: Sequence[Bucket],
        unfinished: Sequence[Unfinished],
        failed: Sequence[Failed] = (),
    ) -> None:
        """Add `finished`, replace what is `unfinished` of the sessions named, then note `upto`.

        The last FAILURES_MAX of `failed` are kept as well.

        When it fails, or the process dies in it, `resume` and a projection of the same commits,
        cut in the same way or not, lead to the same history as if it had not.
        """
        ...

    async def find(
        self,
        *,
        session: str | None = None,
        subject: str | None = None,
        state: str | None = None,
        limit: int = 100,
    ) -> Sequence[HistoryRow]:
        """Return the newest requests (by accepted_at) that match every given filter."""
        ...

    def unfinished_pieces(self, query: Query) -> AsyncGenerator[Packed, None]:
        """Yield, in any order, what may match `query` of what has not finished."""
        ...

    def finished_pieces(self, query: Query) -> AsyncGenerator[Packed, None]:
        """Yield, newest first, what may match `query` of what has finished."""
        ...

    async def failed(self, session: str, n: int) -> Failed | None:
        """Return what is kept of a request that ended with an error; None when nothing is."""
        ...

    async def expire(self, finished_before: float) -> int:
        """Delete the buckets whose last request finished before that Unix time, and what is kept
        of older failures, or of more than FAILURES_MAX.

        Return how many requests were in them.
        """
        ...


PENDING: Final = "pending"
CARRIED_OUT: Final = "done"
REFUSED: Final = "refused"


class Command(Struct, kw_only=True, frozen=True):
    """What an operator asks of the server that has the sessions; it alone may change them.

    `kind` is cancel, retry, close or close_and_cancel; `target` a request (`<session>:<n>`) or a
    session. `status` is PENDING, CARRIED_OUT or REFUSED, `outcome` says it to a person. Ids sort
    by age.
    """

    id: str
    kind: str
    target: str
    created_at: float
    status: str = PENDING
    outcome: str = ""


class Commands(Protocol):
    """The commands of operators; durable when a call returns."""

    async def put(self, command: Command) -> None:
        """Add a command, whose id is new."""
        ...

    async def get(self, command_id: str) -> Command | None:
        """Return the command, or None."""
        ...

    async def pending(self, limit: int) -> Sequence[Command]:
        """Return the oldest commands that are PENDING, no more than `limit`."""
        ...

    async def settle(self, command_id: str, status: str, outcome: str) -> None:
        """Note what became of a command. Doing it again changes nothing more."""
        ...

    async def expire(self, created_before: float) -> None:
        """Delete the commands of before that Unix time, whatever became of them."""
        ...


class Store(Protocol):
    """An open store. Everything in it fails with the errors of log.py."""

    @property
    def log(self) -> Log:
        """The logs. Raises JournalError when the store was opened without them."""
        ...

    @property
    def log_reader(self) -> LogReader:
        """The logs to read only, which needs no lock: a server may be writing them."""
        ...

    @property
    def users(self) -> Users:
        """The users."""
        ...

    @property
    def history(self) -> History:
        """The request log."""
        ...

    @property
    def commands(self) -> Commands:
        """What operators ask for."""
        ...

    async def close(self) -> None:
        """Release the store. What was appended is durable already."""
        ...
