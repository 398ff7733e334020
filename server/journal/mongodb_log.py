"""The log in MongoDB: one document per commit; its `_id` is its place in the log.

    log     {_id: "owner/seq", data}                      a commit
            {_id: "owner/seq", data, parts, digest}       the end of a commit over PIECE_BYTES
            {_id: "owner/seq", fence: true}               nothing can be appended here any more
    parts   {_id: "owner/seq/digest/number", head: "owner/seq", data}   what comes before the end
    seals   {_id: "owner", sealed_by}                     who sealed; only after a fence is there
    owners  {_id: "owner", trimmed, projected, forgotten_at}

Inserting the document in `log` is the commit; the unique `_id` decides between it and a fence.
Parts are written before it and are named by content: those of an append that did not come through
are in nobody's way and are used by its repetition.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Collection
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pymongo import DESCENDING
from pymongo.errors import BulkWriteError, DuplicateKeyError

from server.journal.log import Commit, JournalError, LogInfo, Sealed, Unavailable
from server.journal.mongodb_errors import mongodb_errors
from server.journal.owners import check_next, check_owner

PIECE_BYTES: Final = 15 * 1024 * 1024
"""Most data in one document; MongoDB's limit is 16 MiB for all of it."""
READ_DOCUMENTS: Final = 256
"""Documents fetched at a time; MongoDB ends a batch at 16 MiB."""
SPARED_PER_DELETE: Final = 1000
FENCES: Final = 32
"""Places fenced at once, as a living owner goes on appending until it meets one."""
SEAL_SECONDS: Final = 10.0
"""How long to chase a living owner, or to wait until a majority has the seal."""
SEAL_PAUSE_SECONDS: Final = 0.01
FENCES_KEPT: Final = timedelta(days=7)
"""A process that was paused for longer may append to its log though it was forgotten."""

_DUPLICATE_KEY: Final = 11000

_Document = dict[str, Any]


class MongodbLog:
    """See log.Log. The arguments are the four collections."""

    def __init__(self, *, log: Any, parts: Any, seals: Any, owners: Any) -> None:
        self._log = log
        self._parts = parts
        self._seals = seals
        self._owners = owners
        self._last: dict[str, int] = {}
        self._appending: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Wait for the appends whose callers were cancelled."""
        await asyncio.gather(*self._appending, return_exceptions=True)

    # Append

    async def append(self, owner: str, seq: int, data: bytes) -> None:
        # Shielded, as a write may land though nobody waits for it any more.
        task = asyncio.ensure_future(self._append(owner, seq, data))
        self._appending.add(task)
        task.add_done_callback(self._appending.discard)
        await asyncio.shield(task)

    async def _append(self, owner: str, seq: int, data: bytes) -> None:
        with mongodb_errors():
            last = self._last.get(owner)
            if last is None:
                last = self._last[owner] = await self._register(owner)
            check_next(owner, seq, last)
            head, parts = _documents(owner, seq, data)
            if seq > last:
                try:
                    for part in parts:
                        await self._insert_part(part)
                    await self._log.insert_one(head)
                except DuplicateKeyError:
                    pass  # an earlier try came through, or a fence is there
                else:
                    self._last[owner] = seq
                    return
            await self._compare(head, durable=seq <= last)
            self._last[owner] = max(seq, self._last[owner])

    async def _insert_part(self, part: _Document) -> None:
        # A duplicate is what an earlier try wrote; the majority that has the head has it too.
        with suppress(DuplicateKeyError):
            await self._parts.insert_one(part)

    async def _compare(self, head: _Document, *, durable: bool) -> None:
        there = await self._log.find_one({"_id": head["_id"]})
        if there is None and not durable:
            raise Unavailable(f"MongoDB: a majority does not have {head['_id']} yet")
        if there != head:
            raise Sealed(f"the log has something else as {head['_id']}")

    async def _register(self, owner: str) -> int:
        """Make `owner` known, so that owners() finds it; return the seq of its last commit."""
        check_owner(owner)
        with suppress(DuplicateKeyError):
            await self._owners.insert_one({"_id": owner, "trimmed": 0})
        return await self._last_seq(owner)

    async def _last_seq(self, owner: str) -> int:
        commits = {**_within(owner), "fence": {"$exists": False}}
        end = await self._log.find_one(commits, {"_id": 1}, sort=[("_id", DESCENDING)])
        return max(await self._trimmed(owner), 0 if end is None else _seq(end))

    async def _trimmed(self, owner: str) -> int:
        document = await self._owners.find_one({"_id": owner})
        return 0 if document is None else document.get("trimmed", 0)

    # Read

    async def read(self, owner: str, after: int) -> AsyncGenerator[Commit, None]:
        cursor = self._log.find(_within(owner, after)).sort("_id").batch_size(READ_DOCUMENTS)
        try:
            with mongodb_errors():
                async for head in cursor:
                    commit = await self._commit(head)
                    if commit is not None:
                        yield commit
        finally:
            await cursor.close()

    async def _commit(self, head: _Document) -> Commit | None:
        if "fence" in head:
            return None
        data = head["data"]
        if "parts" in head:
            prefix = f"{head['_id']}/{head['digest']}"
            parts = self._parts.find({"_id": {"$gt": f"{prefix}/", "$lt": f"{prefix}0"}})
            pieces = [part["data"] async for part in parts.sort("_id")]
            if len(pieces) != head["parts"]:
                if await self._log.find_one({"_id": head["_id"]}, {"_id": 1}) is None:
                    return None  # trimmed meanwhile
                raise JournalError(f"the log lacks parts of {head['_id']}")
            data = b"".join([*pieces, data])
        return Commit(_seq(head), data)

    async def owners(self) -> list[LogInfo]:
        with mongodb_errors():
            seals = {seal["_id"]: seal["sealed_by"] async for seal in self._seals.find()}
            known = self._owners.find({"forgotten_at": {"$exists": False}}).sort("_id")
            return [
                LogInfo(owner["_id"], owner.get("trimmed", 0), seals.get(owner["_id"]))
                async for owner in known
                # Registered, but nothing was ever appended?
                if owner["_id"] in seals or await self._last_seq(owner["_id"]) > 0
            ]

    # Seal

    async def seal(self, owner: str, by: str) -> str:
        try:
            async with asyncio.timeout(SEAL_SECONDS):
                with mongodb_errors():
                    await self._register(owner)
                    await self._fence(owner)
                    return await self._elect(owner, by)
        except TimeoutError:
            raise Unavailable(f"MongoDB: cannot seal the log of {owner}") from None

    async def _fence(self, owner: str) -> None:
        """Put fences where the next commits would go, until the owner cannot get past them."""
        while True:
            last = await self._last_seq(owner)
            places = range(last + 1, last + 1 + FENCES)
            first = await self._log.find_one({"_id": _key(owner, places[0]), "fence": True})
            # The owner may have appended at that place and trimmed it before the fence came there.
            # The watermark, written before anything is deleted, tells if it is read after.
            if first is not None and await self._trimmed(owner) <= last:
                return
            try:
                fences = [{"_id": _key(owner, seq), "fence": True} for seq in places]
                await self._log.insert_many(fences, ordered=False)
            except BulkWriteError as error:
                if any(each["code"] != _DUPLICATE_KEY for each in error.details["writeErrors"]):
                    raise
                await asyncio.sleep(SEAL_PAUSE_SECONDS)

    async def _elect(self, owner: str, by: str) -> str:
        """Return who is the first to claim the seal, as a majority knows it."""
        with suppress(DuplicateKeyError):
            await self._seals.insert_one({"_id": owner, "sealed_by": by})
        while True:
            seal = await self._seals.find_one({"_id": owner})
            if seal is not None:
                return seal["sealed_by"]
            await asyncio.sleep(SEAL_PAUSE_SECONDS)

    # Trim and forget

    async def trim(self, owner: str, upto: int, spare: Collection[int] = ()) -> None:
        with mongodb_errors():
            upto = min(upto, self._last.get(owner) or await self._register(owner))
            await self._owners.update_one({"_id": owner}, {"$max": {"trimmed": upto}})
            spared = sorted(seq for seq in spare if seq <= upto)
            after = 0
            for start in range(0, len(spared), SPARED_PER_DELETE):
                some = spared[start : start + SPARED_PER_DELETE]
                await self._delete(owner, after, some[-1], some)
                after = some[-1]
            await self._delete(owner, after, upto, [])

    async def _delete(self, owner: str, after: int, upto: int, spare: Collection[int]) -> None:
        """Delete the documents with a seq in (`after`, `upto`] but those in `spare`."""
        within = {"$gte": _key(owner, after + 1), "$lt": _key(owner, upto + 1)}
        spared = {"$nin": [_key(owner, seq) for seq in spare]}
        # Heads first: a head without its parts would be a damaged commit.
        await self._log.delete_many({"_id": within | spared})
        await self._parts.delete_many({"_id": within, "head": spared})

    async def forget(self, owner: str) -> None:
        with mongodb_errors():
            if await self._owners.find_one({"_id": owner}) is None:
                return
            # The fences stay for a while, unseen: a process that was paused all this time must
            # still find that the log is not its own any more.
            await self._fence(owner)
            last = await self._last_seq(owner)
            gone = {"$set": {"forgotten_at": datetime.now(UTC)}, "$max": {"trimmed": last}}
            await self._owners.update_one({"_id": owner}, gone)
            await self._delete(owner, 0, last, [])
            await self._sweep()

    async def _sweep(self) -> None:
        """Delete the fences of logs that were forgotten long ago."""
        old = {"forgotten_at": {"$lt": datetime.now(UTC) - FENCES_KEPT}}
        for owner in [document["_id"] async for document in self._owners.find(old)]:
            await self._log.delete_many(_within(owner))
            await self._parts.delete_many(_within(owner))
            await self._seals.delete_one({"_id": owner})
            await self._owners.delete_one({"_id": owner})


def _documents(owner: str, seq: int, data: bytes) -> tuple[_Document, list[_Document]]:
    """Return the document that is the commit, and those that must be there before it."""
    key = _key(owner, seq)
    if len(data) <= PIECE_BYTES:
        return {"_id": key, "data": data}, []
    digest = hashlib.sha256(data).hexdigest()
    *pieces, last = [data[at : at + PIECE_BYTES] for at in range(0, len(data), PIECE_BYTES)]
    parts = [
        {"_id": f"{key}/{digest}/{number:04d}", "head": key, "data": piece}
        for number, piece in enumerate(pieces)
    ]
    return {"_id": key, "data": last, "parts": len(parts), "digest": digest}, parts


def _key(owner: str, seq: int) -> str:
    return f"{owner}/{seq:016d}"


def _seq(document: _Document) -> int:
    return int(document["_id"].rpartition("/")[2])


def _within(owner: str, after: int = 0) -> _Document:
    """Return a filter for the documents of `owner`; "0" is the character after "/"."""
    return {"_id": {"$gt": _key(owner, after), "$lt": f"{owner}0"}}
