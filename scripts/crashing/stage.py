"""The server, its journal and its database: started, ended and looked into, all of it recorded.

    up -> kill | stop | pause, continue -> down -> durable -> up ...

A `durable` event says what the journal holds while no server runs.
"""

import asyncio
import os
import secrets
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from pymongo import MongoClient

from scripts.checking.history import Writer
from scripts.ports import free_port
from server.tokens import issue_token

from . import durable, names
from .place import Place
from .processes import POLL_SECONDS, Process, mongodb
from .trigger import Trigger

ROOT: Final = Path(__file__).parents[2]
TOKEN_SECONDS: Final = 24 * 3600.0
SETTINGS: Final[Mapping[str, object]] = {
    "handlers": "scripts.crashing.handlers:handlers",
    "window": 16,
    "checkpoint_bytes": 8 * 1024,  # so that there is always one under way
    "drain_timeout": 0.5,
    "log_format": "json",
    "admin_port": 0,
}
COLLECTIONS: Final = 100
"""So many that each of SecantusDB's 16 files has one of them."""
SERVE: Final = ("-m", "server", "serve")


class Broken(Exception):
    """The server did what it must not, seen from outside: `rule` says which kind of thing."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(text)
        self.rule = rule


class Stage:
    """A journal (sqlite or mongodb) in `directory`, and its servers one after the other.

    `place` is where clients find them. `history` and `episode`, the directory it is in, are set
    before anything is started in an episode.
    """

    def __init__(
        self,
        directory: Path,
        journal: str,
        command: Sequence[str],
        settings: Mapping[str, object] = SETTINGS,
    ) -> None:
        self.directory = directory
        self.place = Place()
        self.history: Writer
        self.episode: Path
        self.server: Process
        self.database = mongodb(directory) if journal == "mongodb" else None
        self.journal = f"sqlite:///{directory / 'journal.db'}"
        if self.database is not None:
            self.journal = f"mongodb://127.0.0.1:{self.database.port}/crashtest"
        self.journal_is_read = asyncio.Lock()
        self._command = command
        self._settings = settings
        self._secret = secrets.token_hex(32)
        self._ports = (free_port(), free_port())
        self._servers = 0
        self._all: list[Process] = []

    def token(self, subject: str) -> str:
        """Return a token for that subject."""
        return issue_token(
            self._secret,
            subject,
            ttl_seconds=TOKEN_SECONDS,
            scope=None,
            audience=None,
            issuer=None,
            now=time.time(),
        )

    # The server

    def _process(self, name: str, port: int, trigger: Trigger | None, **more: object) -> Process:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("QUEUESYSTEM_")}
        settings = {**self._settings, "port": port, "journal": self.journal}
        settings |= {"jwt_secret": self._secret, **more}
        clean |= {f"QUEUESYSTEM_{key.upper()}": str(value) for key, value in settings.items()}
        clean |= {names.HISTORY: str(self.episode), names.SERVER: name, "PYTHONPATH": str(ROOT)}
        if trigger is not None:
            clean[names.TRIGGER] = trigger.text()
        log = self.episode / "server.log"
        command = [sys.executable, *self._command]
        process = Process(name, command, clean, log, port, serves=True)
        self._all = [each for each in self._all if not each.ended]
        self._all.append(process)
        return process

    def successor(self) -> Process:
        """Return a server, not yet started, on the port that the present one does not have."""
        self._servers += 1
        first, second = self._ports
        port = second if self.place.port == first else first
        return self._process(f"s{self._servers}", port, None)

    async def up(self, trigger: Trigger | None = None) -> None:
        """Start the next server where the last one was, without waiting for it."""
        self._servers += 1
        port = self.place.port or self._ports[0]
        server = self._process(f"s{self._servers}", port, trigger)
        self.place.port = port
        self.place.server = server.name
        await self.spawn(server)
        self.server = server

    async def replace(self) -> float:
        """Start the next server beside the present one, which ends for it; return when it was told
        to (CLOCK_MONOTONIC).
        """
        self._servers += 1
        old = self.server
        new = self._process(f"s{self._servers}", old.port, None, replace=old.pid)
        before = old.log.stat().st_size
        await self.spawn(new)
        while b'"replacing"' not in old.log.read_bytes()[before:]:
            if new.ended:
                await self.fell(new)
            await asyncio.sleep(POLL_SECONDS)
        told_at = time.monotonic()
        self.history.write("stop", server=old.name)
        await self.down(old, 0)
        self.place.server = new.name
        self.server = new
        return told_at

    async def spawn(self, server: Process) -> None:
        """Start `server`."""
        await server.spawn()
        self.history.write("up", server=server.name, pid=server.pid, journal=self.journal)

    async def kill(self) -> None:
        """SIGKILL the server."""
        self.history.write("kill", server=self.server.name)
        self.server.signal(signal.SIGKILL)
        await self.down(self.server, -signal.SIGKILL)

    async def stop(self) -> None:
        """SIGTERM the server, which must end in good order."""
        self.history.write("stop", server=self.server.name)
        self.server.signal(signal.SIGTERM)
        await self.down(self.server, 0)

    async def down(self, server: Process, code: int, seconds: float | None = None) -> None:
        """Wait until `server` is gone. Raises Broken when it ended with another code."""
        ended = await (server.gone() if seconds is None else server.gone(seconds))
        if server is self.server:
            self.place.open.clear()
        self.history.write("down", server=server.name, code=ended)
        if ended != code:
            raise Broken("exit", f"server {server.name} ended with {ended}, not {code}")

    async def fell(self, server: Process) -> NoReturn:
        """Raise Broken for `server`, which nobody has ended."""
        code = await server.gone()
        self.history.write("down", server=server.name, code=code)
        raise Broken("exit", f"server {server.name} ended with {code} by itself")

    def pause(self) -> None:
        """SIGSTOP the server."""
        self.history.write("pause", server=self.server.name)
        self.server.signal(signal.SIGSTOP)

    def resume(self, server: Process) -> None:
        """SIGCONT `server`."""
        self.history.write("continue", server=server.name)
        server.signal(signal.SIGCONT)

    def move_to(self, server: Process) -> None:
        """Make `server`, which listens, the one that clients find."""
        self.server = server
        self.place.server = server.name
        self.place.port = server.port
        self.place.open.set()

    # The journal

    async def durable(self) -> int:
        """Record what the journal says now; return how many requests have not ended in it."""
        async with self.journal_is_read:
            try:
                journal = await asyncio.to_thread(durable.read, self.journal)
            except Exception as error:
                raise Broken("journal", f"the journal cannot be read: {error!r}") from error
        sessions = {name: session.record() for name, session in journal.sessions.items()}
        self.history.write("durable", sessions=sessions, servers=journal.owners)
        return sum(session.unfinished for session in journal.sessions.values())

    async def database_up(self) -> None:
        """Start the database for the first time, and make it ready to be killed."""
        if self.database is not None:
            await self._database_listens(self.database)
            await asyncio.to_thread(self._make_files)

    async def _database_listens(self, database: Process) -> None:
        await database.spawn()
        if not await database.listening():
            raise Broken("database", f"the database ended (see {database.log})")

    def _make_files(self) -> None:
        """Have SecantusDB make its files, of which it takes one for each collection.

        It makes them when they are first needed, and cannot be started again after a SIGKILL in
        the middle of that.
        """
        with MongoClient[dict[str, Any]](self.journal) as client:
            for number in range(COLLECTIONS):
                client["files"][f"collection{number}"].insert_one({})

    async def database_kill(self) -> None:
        """SIGKILL the database."""
        if self.database is not None:
            self.history.write("database_kill")
            await self.database.kill()

    async def database_back(self) -> None:
        """Start the database again."""
        if self.database is not None:
            await self._database_listens(self.database)
            self.history.write("database_up")

    # The end

    async def end_servers(self) -> None:
        """End every server that still runs."""
        self.place.open.clear()
        for server in self._all:
            await server.kill()

    async def close(self) -> None:
        """End every process that still runs."""
        await self.end_servers()
        if self.database is not None:
            await self.database.kill()
