"""The methods of handlers.py, in a server that dies once, before it settles a command.

What the command led to is durable then, and what it had run again is over.
"""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

from server.operations import Operator
from tests.integration.handlers import handlers  # noqa: F401 - what the server loads

DIED = Path("died")


async def _carry_out(self: Operator, command: Any) -> None:
    settle = self._store.commands.settle

    async def die(command_id: str, status: str, outcome: str) -> None:
        if not DIED.exists():
            again = self._sessions.get(f"retry-{command_id}")
            while again is not None and again.session.unfinished:
                await asyncio.sleep(0)
            await self._committer.durable()
            DIED.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        await settle(command_id, status, outcome)

    self._store.commands.settle = die  # type: ignore[method-assign]
    try:
        await _real(self, command)
    finally:
        self._store.commands.settle = settle  # type: ignore[method-assign]


_real = Operator._carry_out
Operator._carry_out = _carry_out  # type: ignore[method-assign]
