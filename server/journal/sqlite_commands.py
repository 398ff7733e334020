"""What operators ask for, in SQLite: a row per command, beside the log in the same file."""

from collections.abc import Sequence
from typing import Any, Final

from server.journal.sqlite_thread import SqliteThread, execute, fetch
from server.journal.store import PENDING, Command

SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS commands (
        id TEXT PRIMARY KEY,
        kind TEXT NOT NULL,
        target TEXT NOT NULL,
        created_at REAL NOT NULL,
        status TEXT NOT NULL,
        outcome TEXT NOT NULL
    ) WITHOUT ROWID""",
    """CREATE INDEX IF NOT EXISTS commands_pending ON commands (id)
        WHERE status = 'pending'""",
)

_COMMAND: Final = "SELECT id, kind, target, created_at, status, outcome FROM commands"


class SqliteCommands:
    """See store.Commands."""

    def __init__(self, writer: SqliteThread, reader: SqliteThread) -> None:
        self._writer = writer
        self._reader = reader

    async def put(self, command: Command) -> None:
        await self._writer.run(
            execute,
            "INSERT INTO commands VALUES (?, ?, ?, ?, ?, ?)",
            (
                command.id,
                command.kind,
                command.target,
                command.created_at,
                command.status,
                command.outcome,
            ),
        )

    async def get(self, command_id: str) -> Command | None:
        rows = await self._reader.run(fetch, f"{_COMMAND} WHERE id = ?", (command_id,))
        return _command(rows[0]) if rows else None

    async def pending(self, limit: int) -> Sequence[Command]:
        sql = f"{_COMMAND} WHERE status = 'pending' ORDER BY id LIMIT ?"
        return [_command(row) for row in await self._reader.run(fetch, sql, (limit,))]

    async def settle(self, command_id: str, status: str, outcome: str) -> None:
        await self._writer.run(
            execute,
            "UPDATE commands SET status = ?, outcome = ? WHERE id = ? AND status = ?",
            (status, outcome, command_id, PENDING),
        )

    async def expire(self, created_before: float) -> None:
        sql = "SELECT EXISTS (SELECT 1 FROM commands WHERE created_at < ?)"
        if (await self._reader.run(fetch, sql, (created_before,)))[0][0]:
            await self._writer.run(
                execute, "DELETE FROM commands WHERE created_at < ?", (created_before,)
            )


def _command(row: Sequence[Any]) -> Command:
    name, kind, target, created_at, status, outcome = row
    return Command(
        id=name, kind=kind, target=target, created_at=created_at, status=status, outcome=outcome
    )
