"""The stores the contract is tested on, and how to open each."""

import os
import secrets
from typing import Any
from urllib.parse import urlsplit

from pymongo import AsyncMongoClient, MongoClient

from server.journal.log import Commit, Log
from server.journal.mongodb import open_mongodb
from server.journal.opening import HISTORY_TTL_SECONDS, open_store
from server.journal.store import Store

MONGODB_KINDS = ("mongodb-motor", "mongodb-pymongo")
KINDS = ("sqlite", *MONGODB_KINDS)
REAL_MONGODB = os.environ.get("TEST_MONGODB_URI")


async def open_kind(kind: str, url: str, **options: Any) -> Store:
    """Open `url` the way that `kind` asks for."""
    if kind == "mongodb-pymongo":
        defaults: dict[str, Any] = {"log": True, "history_ttl_seconds": HISTORY_TTL_SECONDS}
        driver: Any = AsyncMongoClient
        return await open_mongodb(url, driver=driver, **(defaults | options))
    return await open_store(url, **options)


class Backend:
    """One database, fresh for each test, that can be opened again and again."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind = kind
        self.url = url
        self._stores: list[Store] = []

    async def open(self, **options: Any) -> Store:
        """Open the store; the fixture closes it."""
        store = await open_kind(self.kind, self.url, **options)
        self._stores.append(store)
        return store

    async def reopen(self, store: Store) -> Store:
        """Close `store` and open it anew, as the next process would."""
        await self.close(store)
        return await self.open()

    async def another(self, store: Store) -> Store:
        """Return what another process sees: `store` itself where only one may have it open."""
        return store if self.kind == "sqlite" else await self.open()

    async def close(self, store: Store) -> None:
        self._stores.remove(store)
        await store.close()

    async def close_all(self) -> None:
        for store in list(self._stores):
            await self.close(store)


def fresh_database(url: str) -> str:
    """Return `url` with a database name that nobody used."""
    return urlsplit(url)._replace(path=f"/test_{secrets.token_hex(6)}").geturl()


def drop_database(url: str) -> None:
    """Remove the database that `url` names."""
    with MongoClient[Any](url) as client:
        client.drop_database(client.get_default_database().name)


async def commits(log: Log, owner: str, after: int = 0) -> list[Commit]:
    """Return what `read` yields."""
    return [commit async for commit in log.read(owner, after)]


async def seqs(log: Log, owner: str, after: int = 0) -> list[int]:
    """Return the seqs of what `read` yields."""
    return [commit.seq for commit in await commits(log, owner, after)]


async def append_many(log: Log, owner: str, last: int) -> None:
    """Append small commits up to `last`."""
    for seq in range(1, last + 1):
        await log.append(owner, seq, b"commit %d" % seq)
