"""A store: one place (a SQLite file, a MongoDB database) that holds logs, users and history."""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from server.journal.log import Log


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
    """What is known of one request, keyed by (session, n); None means "nothing new about this".

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


class History(Protocol):
    """The request log operators query: a projection of the logs that may lag behind them."""

    async def projected(self, owner: str) -> int:
        """Return the seq up to which `owner`'s log is in the history; 0 when nothing is."""
        ...

    async def project(self, owner: str, upto: int, rows: Sequence[HistoryRow]) -> None:
        """Merge `rows` (fields that are None keep their old value), then note `upto`.

        Safe to repeat: a crash between the two leads to the same rows once more.
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

    async def expire(self, finished_before: float) -> int:
        """Delete the rows of requests that finished before that Unix time; return how many."""
        ...


class Store(Protocol):
    """An open store. Everything in it fails with the errors of log.py."""

    @property
    def log(self) -> Log:
        """The logs. Raises JournalError when the store was opened without them."""
        ...

    @property
    def users(self) -> Users:
        """The users."""
        ...

    @property
    def history(self) -> History:
        """The request log."""
        ...

    async def close(self) -> None:
        """Release the store. What was appended is durable already."""
        ...
