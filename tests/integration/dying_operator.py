"""The methods of handlers.py, in a server that dies once, before it settles a command."""

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
