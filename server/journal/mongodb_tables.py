"""Users and history in MongoDB: a document per user, a document per request.

A request's document gets `expires_at` when it has finished; a TTL index removes it then.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from msgspec.structs import asdict
from pymongo import ASCENDING, DESCENDING, UpdateOne

from server.journal.mongodb_errors import mongodb_errors
from server.journal.store import HistoryRow, User

CHUNK_ROWS: Final = 500
"""Rows sent in one message."""


class MongodbUsers:
    """See store.Users. `users` is the collection."""

    def __init__(self, users: Any) -> None:
        self._users = users

    async def put(self, user: User) -> None:
        document = asdict(user)
        name = document.pop("name")
        with mongodb_errors():
            await self._users.replace_one({"_id": name}, document, upsert=True)

    async def get(self, name: str) -> User | None:
        with mongodb_errors():
            document = await self._users.find_one({"_id": name})
        return None if document is None else _user(document)

    async def remove(self, name: str) -> bool:
        with mongodb_errors():
            return (await self._users.delete_one({"_id": name})).deleted_count == 1

    async def list(self) -> Sequence[User]:
        with mongodb_errors():
            return [_user(document) async for document in self._users.find().sort("_id")]


class MongodbHistory:
    """See store.History. `owners` is the collection the log keeps its watermarks in."""

    def __init__(self, *, requests: Any, owners: Any, ttl_seconds: float) -> None:
        self._requests = requests
        self._owners = owners
        self._ttl_seconds = ttl_seconds

    async def start(self) -> None:
        """Make the indexes, unless they are there."""
        newest_first = [("accepted_at", DESCENDING), ("_id", DESCENDING)]
        await self._requests.create_index(newest_first)
        await self._requests.create_index([("subject", ASCENDING), *newest_first])
        await self._requests.create_index("expires_at", expireAfterSeconds=0, sparse=True)

    async def projected(self, owner: str) -> int:
        with mongodb_errors():
            document = await self._owners.find_one({"_id": owner})
        return 0 if document is None else document.get("projected", 0)

    async def project(self, owner: str, upto: int, rows: Sequence[HistoryRow]) -> None:
        with mongodb_errors():
            for start in range(0, len(rows), CHUNK_ROWS):
                merges = [self._merge(row) for row in rows[start : start + CHUNK_ROWS]]
                await self._requests.bulk_write(merges)
            await self._owners.update_one(
                {"_id": owner}, {"$max": {"projected": upto}}, upsert=True
            )

    def _merge(self, row: HistoryRow) -> UpdateOne:
        new = {name: value for name, value in asdict(row).items() if value is not None}
        if row.finished_at is not None:
            expires_at = row.finished_at + self._ttl_seconds
            new["expires_at"] = datetime.fromtimestamp(expires_at, UTC)
        key = f"{row.session}/{row.n:016d}"
        return UpdateOne({"_id": key}, {"$set": new}, upsert=True)

    async def find(
        self,
        *,
        session: str | None = None,
        subject: str | None = None,
        state: str | None = None,
        limit: int = 100,
    ) -> Sequence[HistoryRow]:
        filters: dict[str, Any] = {"session": session, "subject": subject, "state": state}
        given = {name: value for name, value in filters.items() if value is not None}
        if session is not None:
            given["_id"] = {"$gt": f"{session}/", "$lt": f"{session}0"}  # has an index
        order = [("accepted_at", DESCENDING), ("_id", DESCENDING)]
        with mongodb_errors():
            found = self._requests.find(given).sort(order).limit(limit)
            return [_row(document) async for document in found]

    async def expire(self, finished_before: float) -> int:
        # What finished before then was accepted before then, and that field has an index.
        old = {
            "$or": [{"accepted_at": {"$lt": finished_before}}, {"accepted_at": None}],
            "finished_at": {"$lt": finished_before},
        }
        with mongodb_errors():
            return (await self._requests.delete_many(old)).deleted_count


def _user(document: dict[str, Any]) -> User:
    return User(name=document.pop("_id"), **document)


def _row(document: dict[str, Any]) -> HistoryRow:
    names = HistoryRow.__struct_fields__
    return HistoryRow(**{name: document[name] for name in names if name in document})
