"""Users and history in MongoDB: a document per user, a document per bucket of requests.

    buckets     {_id: "session/first", session, subject, accepted_at, finished_at, count, states,
                 packed, expires_at}                                       finished requests
    failures    {_id: "session/n", finished_at, packed, expires_at}   what it takes to run again
    unfinished  {_id: session, owner, upto, subject, accepted_at, packed, before}   the others

`packed` is JSON text (buckets.py says what stands where): encoding an array of subdocuments takes
five times as long, and so the requests of a session, in mongosh, are

    db.buckets.find({session: "..."}).toArray().flatMap(bucket => JSON.parse(bucket.packed))

Nothing here is written in a transaction. A chunk of a log is projected in this order:

    1. buckets      names and content are the same, or will be, when it is done again
    2. unfinished   with what was there before, and the place in the log that it is true of
    3. watermark    from here on the chunk is projected
    4. unfinished   documents that say nothing are deleted

After a crash before 3, `resume` puts back what was there before; after 3, it does 4. A TTL index
removes a bucket when the last of its requests has been finished for long enough.
"""

from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec.structs import asdict
from pymongo import ASCENDING, DESCENDING, DeleteOne, ReplaceOne

from server.journal.buckets import find, newest, unpack_rows
from server.journal.entries import DONE
from server.journal.mongodb_errors import mongodb_errors
from server.journal.store import (
    FAILED,
    FAILURES_MAX,
    Bucket,
    Failed,
    HistoryRow,
    Packed,
    Query,
    Unfinished,
    User,
)

CHUNK_DOCUMENTS: Final = 500
"""Documents sent in one message."""
READ_BUCKETS: Final = 16
"""Buckets fetched at a time."""


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

    def __init__(
        self, *, buckets: Any, unfinished: Any, failures: Any, owners: Any, ttl_seconds: float
    ) -> None:
        self._buckets = buckets
        self._failures = failures
        self._failures_written = 0
        self._unfinished = unfinished
        self._owners = owners
        self._ttl_seconds = ttl_seconds

    async def start(self) -> None:
        """Make the indexes, unless they are there."""
        newest_first = ("accepted_at", DESCENDING)
        await self._buckets.create_index([newest_first])
        await self._buckets.create_index([("session", ASCENDING), newest_first])
        await self._buckets.create_index([("subject", ASCENDING), newest_first])
        await self._buckets.create_index("expires_at", expireAfterSeconds=0)
        await self._failures.create_index([("finished_at", DESCENDING)])
        await self._failures.create_index("expires_at", expireAfterSeconds=0)

    async def projected(self, owner: str) -> int:
        with mongodb_errors():
            document = await self._owners.find_one({"_id": owner})
        return 0 if document is None else document.get("projected", 0)

    async def resume(self, owner: str) -> int:
        reached = await self.projected(owner)
        with mongodb_errors():
            async for piece in self._unfinished.find({"owner": owner, "upto": {"$gt": reached}}):
                await self._unfinished.update_one(
                    {"_id": piece["_id"]},
                    {
                        "$set": {
                            "upto": reached,
                            "packed": piece["before"],
                            "accepted_at": newest(unpack_rows(piece["before"])),
                        }
                    },
                )
            await self._unfinished.delete_many({"owner": owner, "packed": ""})
        return reached

    async def unfinished(self, sessions: Sequence[str]) -> Sequence[Packed]:
        pieces: list[Packed] = []
        with mongodb_errors():
            for start in range(0, len(sessions), CHUNK_DOCUMENTS):
                some = {"_id": {"$in": sessions[start : start + CHUNK_DOCUMENTS]}}
                pieces += [_packed(piece) async for piece in self._unfinished.find(some)]
        return pieces

    async def project(
        self,
        owner: str,
        upto: int,
        finished: Sequence[Bucket],
        unfinished: Sequence[Unfinished],
        failed: Sequence[Failed] = (),
    ) -> None:
        with mongodb_errors():
            await _write(self._failures, [self._failure(each) for each in failed])
            self._failures_written += len(failed)
            await _write(self._buckets, [self._bucket(each) for each in finished])
            await _write(
                self._unfinished,
                [
                    ReplaceOne(
                        {"_id": piece.session},
                        {
                            "owner": owner,
                            "upto": upto,
                            "subject": piece.subject,
                            "accepted_at": piece.accepted_at,
                            "packed": piece.packed,
                            "before": piece.before,
                        },
                        upsert=True,
                    )
                    for piece in unfinished
                ],
            )
            await self._owners.update_one(
                {"_id": owner}, {"$max": {"projected": upto}}, upsert=True
            )
            empty = [DeleteOne({"_id": piece.session}) for piece in unfinished if not piece.packed]
            await _write(self._unfinished, empty)

    def _failure(self, failed: Failed) -> ReplaceOne[dict[str, Any]]:
        return ReplaceOne(
            {"_id": f"{failed.session}/{failed.n:016d}"},
            {
                "finished_at": failed.finished_at,
                "packed": _encode(failed).decode(),
                "expires_at": self._expires_at(failed.finished_at),
            },
            upsert=True,
        )

    async def failed(self, session: str, n: int) -> Failed | None:
        with mongodb_errors():
            document = await self._failures.find_one({"_id": f"{session}/{n:016d}"})
        return None if document is None else _decode_failed(document["packed"])

    def _expires_at(self, finished_at: float) -> datetime:
        return datetime.fromtimestamp(finished_at + self._ttl_seconds, UTC)

    def _bucket(self, bucket: Bucket) -> ReplaceOne[dict[str, Any]]:
        return ReplaceOne(
            {"_id": f"{bucket.session}/{bucket.first:016d}"},
            {
                "session": bucket.session,
                "subject": bucket.subject,
                "accepted_at": bucket.accepted_at,
                "finished_at": bucket.finished_at,
                "count": bucket.count,
                "states": bucket.states,
                "packed": bucket.packed,
                "expires_at": self._expires_at(bucket.finished_at),
            },
            upsert=True,
        )

    async def find(
        self,
        *,
        session: str | None = None,
        subject: str | None = None,
        state: str | None = None,
        limit: int = 100,
    ) -> Sequence[HistoryRow]:
        query = Query(session=session, subject=subject, state=state, limit=limit)
        return await find(self, query)

    def unfinished_pieces(self, query: Query) -> AsyncGenerator[Packed]:
        # By _id, which a document keeps: a session that goes on meanwhile is not passed over.
        given = _given(query)
        if query.session is not None:
            given["_id"] = given.pop("session")
        return _pieces(self._unfinished, given, "_id", ASCENDING)

    def finished_pieces(self, query: Query) -> AsyncGenerator[Packed]:
        given = _given(query)
        if query.state == FAILED:
            given["states"] = {"$elemMatch": {"$ne": DONE}}
        elif query.state is not None:
            given["states"] = query.state
        return _pieces(self._buckets, given, "accepted_at", DESCENDING)

    async def expire(self, finished_before: float) -> int:
        # What finished before then was accepted before then, and that field has an index.
        before = {"$lt": finished_before}
        old = {"accepted_at": before, "finished_at": before}
        with mongodb_errors():
            counts = [bucket["count"] async for bucket in self._buckets.find(old, {"count": 1})]
            if counts:
                await self._buckets.delete_many(old)
            await self._failures.delete_many({"finished_at": before})
            if self._failures_written > FAILURES_MAX // 10:
                await self._trim_failures()
        return sum(counts)

    async def _trim_failures(self) -> None:
        newest_first = self._failures.find({}, {"finished_at": 1}).sort("finished_at", DESCENDING)
        async for failure in newest_first.skip(FAILURES_MAX).limit(1):
            upto = {"$lte": failure["finished_at"]}
            await self._failures.delete_many({"finished_at": upto})
        self._failures_written = 0


_encode: Final = msgspec.json.Encoder().encode
_decode_failed: Final = msgspec.json.Decoder(Failed).decode


async def _write(collection: Any, operations: Sequence[Any]) -> None:
    for start in range(0, len(operations), CHUNK_DOCUMENTS):
        await collection.bulk_write(operations[start : start + CHUNK_DOCUMENTS], ordered=False)


def _given(query: Query) -> dict[str, Any]:
    """Return the filter of the documents that may match `query`."""
    given: dict[str, Any] = {}
    if query.session is not None:
        given["session"] = query.session
    if query.subject is not None:
        given["subject"] = query.subject
    if query.accepted_after is not None:
        given["accepted_at"] = {"$gte": query.accepted_after}  # that of the newest request in it
    return given


async def _pieces(
    collection: Any, given: dict[str, Any], by: str, direction: int
) -> AsyncGenerator[Packed]:
    """Yield what matches in that order, reading little further than it is asked for."""
    cursor = collection.find(given).sort(by, direction).batch_size(READ_BUCKETS)
    try:
        with mongodb_errors():
            async for document in cursor:
                yield _packed(document)
    finally:
        await cursor.close()


def _packed(document: dict[str, Any]) -> Packed:
    return Packed(
        session=document.get("session", document["_id"]),
        subject=document["subject"],
        accepted_at=document["accepted_at"],
        packed=document["packed"],
    )


def _user(document: dict[str, Any]) -> User:
    return User(name=document.pop("_id"), **document)
