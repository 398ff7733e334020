"""Faults, done to the server on a stage: it dies, stops, is replaced, or loses its database.

    listening -> some time -> SIGKILL | SIGTERM | SIGSTOP ... -> gone, or back again

What a server must do then, seen from outside, is held here: its exit code, its refusal to share a
journal, the end of one that was replaced.
"""

import asyncio
import signal
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from .client import Client
from .faults import Fault, Kind
from .processes import Process, Stuck
from .serverlog import LOCKED, tail
from .stage import Broken, Stage

OUTAGE_SECONDS: Final = 0.4
"""The database is away for so long."""
BACK_SECONDS: Final = 0.3
"""What was done is left alone for so long, for work to go on."""


class Harm:
    """Does faults to the server on `stage`, with `clients` on it; `points` counts the triggers.

    A server that was replaced must end within `patience_seconds`.
    """

    def __init__(
        self,
        stage: Stage,
        clients: Sequence[Client],
        points: Counter[str],
        patience_seconds: float,
    ) -> None:
        self._stage = stage
        self._clients = clients
        self._points = points
        self._patience_seconds = patience_seconds

    async def befall(self, fault: Fault) -> None:
        """Have `fault` happen. Raises Broken, and Stuck."""
        stage = self._stage
        match fault.kind:
            case "early":
                await self._early(fault.seconds)
            case "trigger":
                await self._trigger(fault)
            case _:
                await self.listening(stage.server)
                await self._unless_ended(fault.seconds)
                await self._live_faults(fault.kind)

    async def _live_faults(self, kind: Kind) -> None:
        stage = self._stage
        match kind:
            case "kill":
                await stage.kill()
            case "term":
                await stage.stop()
            case "pause":
                await (self._pause() if stage.database is None else self._zombie())
            case "database":
                await stage.database_kill()
                await asyncio.sleep(OUTAGE_SECONDS)
                await stage.database_back()
                await self._unless_ended(BACK_SECONDS)
            case "both":
                await stage.database_kill()
                await stage.kill()
                await stage.database_back()
            case _:
                raise AssertionError(kind)

    async def _unless_ended(self, seconds: float) -> None:
        """Let the server live for so long. Raises Broken when it ends by itself."""
        server = self._stage.server
        with suppress(Stuck):
            await server.gone(seconds)
            await self._stage.fell(server)

    async def listening(self, server: Process) -> None:
        """Wait until `server` listens. Raises Broken when it ended instead."""
        if not await server.listening():
            await self._stage.fell(server)
        if server is self._stage.server:
            self._stage.place.open.set()

    async def _let_in(self, server: Process) -> None:
        """Let clients come once `server` listens, should it come to that."""
        if await server.listening():
            self._stage.place.open.set()

    async def _early(self, seconds: float) -> None:
        """Kill the server so long after it was spawned, whatever it does then."""
        stage = self._stage
        listening = asyncio.create_task(self._let_in(stage.server))
        try:
            await self._unless_ended(seconds)
        finally:
            listening.cancel()
        await stage.kill()

    async def _trigger(self, fault: Fault) -> None:
        """Wait for the server to kill itself; kill it when it does not come to that."""
        stage = self._stage
        listening = asyncio.create_task(self._let_in(stage.server))
        point = "-" if fault.trigger is None else f"{fault.trigger.phase} {fault.trigger.point}"
        try:
            await stage.server.gone(fault.seconds)
        except Stuck:
            await stage.kill()
            point = "not reached"
        else:
            await stage.down(stage.server, -signal.SIGKILL)
        finally:
            listening.cancel()
        self._points[point] += 1

    async def _pause(self) -> None:
        """Stop the server: another one must refuse its journal. Then let it go on."""
        stage = self._stage
        stage.pause()
        other = stage.successor()
        await other.spawn()
        code = await other.gone()
        said = tail(other.log)
        file = stage.journal.rpartition("/")[2]
        if code != 1 or LOCKED not in said or file not in said:
            raise Broken("lock", f"a second server on the journal ended with {code}")
        stage.resume(stage.server)

    async def _zombie(self) -> None:
        """Stop the server, have another one take over, let it go on: it must end by itself."""
        stage = self._stage
        zombie = stage.server
        stage.pause()
        stage.place.open.clear()
        successor = stage.successor()
        await stage.spawn(successor)
        await self.listening(successor)
        stage.move_to(successor)
        # The others find out when the old one ends.
        for client in self._clients[::2]:
            client.move()
        await asyncio.sleep(BACK_SECONDS)
        stage.resume(zombie)
        await stage.down(zombie, 1, self._patience_seconds)
