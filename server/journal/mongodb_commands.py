"""What operators ask for, in MongoDB: {_id: id, kind, target, created_at, status, outcome}."""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import asdict

from server.journal.mongodb_errors import mongodb_errors
from server.journal.store import PENDING, Command


class MongodbCommands:
    """See store.Commands. `commands` is the collection."""

    def __init__(self, commands: Any) -> None:
        self._commands = commands

    async def put(self, command: Command) -> None:
        document = asdict(command)
        document["_id"] = document.pop("id")
        with mongodb_errors():
            await self._commands.insert_one(document)

    async def get(self, command_id: str) -> Command | None:
        with mongodb_errors():
            document = await self._commands.find_one({"_id": command_id})
        return None if document is None else _command(document)

    async def pending(self, limit: int) -> Sequence[Command]:
        # Few are there at all, as they expire: no index but that of _id is needed.
        with mongodb_errors():
            found = self._commands.find({"status": PENDING}).sort("_id").limit(limit)
            return [_command(document) async for document in found]

    async def settle(self, command_id: str, status: str, outcome: str) -> None:
        with mongodb_errors():
            await self._commands.update_one(
                {"_id": command_id, "status": PENDING},
                {"$set": {"status": status, "outcome": outcome}},
            )

    async def expire(self, created_before: float) -> None:
        with mongodb_errors():
            await self._commands.delete_many({"created_at": {"$lt": created_before}})


def _command(document: dict[str, Any]) -> Command:
    return Command(id=document.pop("_id"), **document)
