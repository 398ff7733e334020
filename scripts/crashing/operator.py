"""An operator at work while servers die: cancels what has not ended, now and then closes a session.

read the requests now -> choose one -> say so in the history -> put the command into the store
"""

import asyncio
import secrets
import time
from random import Random
from typing import Final

from server.journal.log import Damaged, JournalError
from server.journal.opening import open_store
from server.journal.store import Command, Query, Store
from server.journal.tail import find_now

from .client import Tally
from .stage import Broken, Stage

PAUSE_SECONDS: Final = 0.4
"""At most, between two commands."""
CLOSES: Final = 0.05
CHOICE: Final = 50


class Operator:
    """Gives commands to whatever server has the journal of `stage`, by way of the journal."""

    def __init__(self, stage: Stage, tally: Tally, dice: Random) -> None:
        self._stage = stage
        self._tally = tally
        self._dice = dice

    async def run(self) -> None:
        """Go on until cancelled. Raises Broken."""
        while True:
            await asyncio.sleep(self._dice.random() * PAUSE_SECONDS)
            # SQLite's locks are the process's: nobody else here may open and close its file.
            async with self._stage.journal_is_read:
                try:
                    await self._open_and_act()
                except Damaged as error:
                    raise Broken("operator", f"the journal cannot be read: {error!r}") from error
                except JournalError:
                    pass  # not there yet, or away
            await asyncio.sleep(0)

    async def _open_and_act(self) -> None:
        store = await open_store(self._stage.journal, log=False, make=False)
        try:
            await self._act(store)
        finally:
            await store.close()

    async def _act(self, store: Store) -> None:
        dice = self._dice
        state = dice.choice(("waiting", "running"))
        rows = await find_now(store, Query(state=state, limit=CHOICE))
        if not rows:
            return
        row = dice.choice(rows)
        history = self._stage.history
        if dice.random() < CLOSES:
            cancel = dice.random() < 0.5
            history.write("operator_close", session=row.session, cancel=cancel)
            kind, target = "close_and_cancel" if cancel else "close", row.session
        else:
            history.write("operator_cancel", session=row.session, n=row.n)
            kind, target = "cancel", f"{row.session}:{row.n}"
        await store.commands.put(
            Command(
                id=f"{time.time_ns():016x}-{secrets.token_hex(6)}",
                kind=kind,
                target=target,
                created_at=time.time(),
            )
        )
        self._tally.commands += 1
