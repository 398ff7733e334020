"""A store in one MongoDB database.

    log, parts, seals, owners    the log (mongodb_log.py)
    users, buckets, unfinished, failures   users and history (mongodb_tables.py)
    commands                     what operators ask for (mongodb_commands.py)
    schema                       {_id: "version", number}

Every write waits for the journal of a majority (w: majority, j: true), every read sees only what
a majority has, from the primary: nothing that is read here can be rolled back.

Motor is the driver; PyMongo's AsyncMongoClient fits as well (DRIVER below is the one line). So
only calls that both have are used, and each is awaited at once: Motor returns running futures,
PyMongo coroutines that have not started.
"""

import inspect
from collections.abc import Callable
from typing import Any, Final

from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import ReadPreference, WriteConcern
from pymongo.errors import ConfigurationError
from pymongo.read_concern import ReadConcern

from server.journal.log import JournalError, Log, LogReader
from server.journal.mongodb_commands import MongodbCommands
from server.journal.mongodb_errors import mongodb_errors
from server.journal.mongodb_log import MongodbLog
from server.journal.mongodb_tables import MongodbHistory, MongodbUsers

DRIVER: Final[Callable[..., Any]] = AsyncIOMotorClient

SCHEMA_VERSION: Final = 3
DATABASE: Final = "queuesystem"
"""Used when the URL names none."""
SELECTION_MS: Final = 3_000
"""How long to look for a primary before a call is Unavailable."""
CONNECT_MS: Final = 3_000
SOCKET_MS: Final = 10_000
"""How long to wait for an answer; writing the largest document must fit."""


class MongodbStore:
    """See store.Store. Made by open_mongodb."""

    def __init__(self, client: Any, *, log: bool, history_ttl_seconds: float) -> None:
        database = client.get_default_database(DATABASE)

        def collection(name: str) -> Any:
            return database.get_collection(
                name,
                write_concern=WriteConcern(w="majority", j=True, wtimeout=SOCKET_MS),
                read_concern=ReadConcern("majority"),
                read_preference=ReadPreference.PRIMARY,
            )

        names = ("log", "parts", "seals", "owners")
        logs = {name: collection(name) for name in names}
        self.users = MongodbUsers(collection("users"))
        self.history = MongodbHistory(
            buckets=collection("buckets"),
            unfinished=collection("unfinished"),
            failures=collection("failures"),
            owners=logs["owners"],
            ttl_seconds=history_ttl_seconds,
        )
        self.commands = MongodbCommands(collection("commands"))
        self._log = MongodbLog(**logs)
        self._may_write_log = log
        self._schema = collection("schema")
        self._owners = logs["owners"]
        self._client = client

    @property
    def log(self) -> Log:
        """The logs. Raises JournalError when the store was opened without them."""
        if not self._may_write_log:
            raise JournalError("this store was opened without its log")
        return self._log

    @property
    def log_reader(self) -> LogReader:
        """The logs, to read only."""
        return self._log

    async def start(self) -> None:
        """Check the version and make the indexes; open_mongodb does it."""
        await self._check_version()
        await self.history.start()

    async def _check_version(self) -> None:
        # Looked at in this order, as another process may be making it all at this moment. What
        # has logs but no version is of version 1.
        in_use = await self._owners.find_one() is not None
        known = await self._schema.find_one({"_id": "version"})
        if known is None:
            known = {"_id": "version", "number": 1 if in_use else SCHEMA_VERSION}
        if known["number"] != SCHEMA_VERSION:
            raise JournalError(
                f"this database was made by another version (schema {known['number']}, not"
                f" {SCHEMA_VERSION}), which this one cannot read: use another database"
            )
        await self._schema.replace_one({"_id": "version"}, known, upsert=True)

    async def close(self) -> None:
        """Wait for appends under way, then disconnect."""
        await self._log.close()
        closing = self._client.close()
        if inspect.isawaitable(closing):  # PyMongo's is, Motor's is not
            await closing


async def open_mongodb(
    url: str, *, log: bool, history_ttl_seconds: float, driver: Callable[..., Any] = DRIVER
) -> MongodbStore:
    """Open the database that `url` names, with `driver` (a client class) as the client.

    Raises ValueError for a malformed URL, Unavailable when no primary answers in time.
    """
    try:
        client = driver(
            url,
            appname="queuesystem",
            serverSelectionTimeoutMS=SELECTION_MS,
            connectTimeoutMS=CONNECT_MS,
            socketTimeoutMS=SOCKET_MS,
        )
    except (ConfigurationError, ValueError) as error:
        raise ValueError(f"not a usable MongoDB URL: {error}") from error
    store = MongodbStore(client, log=log, history_ttl_seconds=history_ttl_seconds)
    try:
        with mongodb_errors():
            await store.start()
    except BaseException:
        await store.close()
        raise
    return store
