"""Recovery: take over what earlier owners left, under a new epoch, losing nothing.

    begin the own log -> seal every older one -> [listen] -> fold them, newest first
    -> prepare each session -> snapshots and `claimed` entries into the own log
    -> [committed] sessions go on

New sessions are served from the moment the older logs are sealed; who wants to resume an old one
waits until it was taken over.

Two processes that recover at once are told apart by age: the newest wins, the others find their
logs (or the seals they tried to write) taken and stop.
"""

import asyncio
import secrets
from collections.abc import Iterable
from functools import partial
from typing import Final

import structlog

from server.handlers import Handlers
from server.journal.committer import Committer
from server.journal.entries import Claimed
from server.journal.folding import fold_log, fold_unclaimed
from server.journal.log import Damaged, Log, LogInfo, Sealed, Unavailable
from server.journal.state import SessionState, State

CLAIM_SLICE: Final = 100
"""Sessions claimed per commit."""
RETRY_SECONDS: Final = 1.0
"""Wait before a log that could not be read to its end is read again."""

_NEWER: Final = "a newer server has taken over this journal"

_log = structlog.get_logger(__name__)


async def new_owner(log: Log, time_ns: int) -> str:
    """Return a name for this process's log that sorts after all others, whatever the clock says."""
    newest = max((int(info.owner.partition("-")[0], 16) for info in await log.owners()), default=0)
    return f"{max(time_ns, newest + 1):016x}-{secrets.token_hex(4)}"


async def seal_older(log: Log, owner: str) -> list[LogInfo]:
    """Seal every other log in `owner`'s name; return them, oldest first.

    `owner` has begun its own log, so that of two processes that do this at once at least one sees
    the other. From here on nobody else writes, and the old sessions can be taken over at leisure.
    Raises Sealed when a newer owner is there; its log is left alone.
    """
    older = [info for info in await log.owners() if info.owner != owner]
    if any(info.owner > owner for info in older):
        raise Sealed(_NEWER)
    for info in older:
        if (info.sealed_by or await log.seal(info.owner, owner)) > owner:
            raise Sealed(_NEWER)
    return older


async def recover(
    log: Log, committer: Committer, handlers: Handlers, older: Iterable[LogInfo]
) -> list[SessionState]:
    """Fold the sealed logs `older` and claim their sessions; durable when it returns them.

    Raises Damaged when a log does not say what was written to it.
    """
    older = list(older)
    sessions: dict[str, SessionState] = {}
    for state in await fold_unclaimed(older, partial(_fold, log)):
        for session in state.sessions.values():
            prepare(session, handlers, orderly=state.stopped)
        sessions.update(state.sessions)
    await _claim(committer, sessions.values(), [info.owner for info in older])
    return list(sessions.values())


async def _fold(log: Log, info: LogInfo) -> State:
    while True:
        try:
            return await fold_log(log, info)
        except Unavailable as error:
            # Not the end of the server: its new sessions wait for the same store.
            _log.warning("recovery_waits", owner=info.owner, error=str(error))
            await asyncio.sleep(RETRY_SECONDS)
        except Damaged:
            # Its owner may only be paused, and have trimmed it at the last moment.
            now = {each.owner: each for each in await log.owners()}.get(info.owner, info)
            if now.trimmed == info.trimmed:
                raise
            info = now


def prepare(session: SessionState, handlers: Handlers, *, orderly: bool) -> None:
    """Make a session of a dead owner ready to go on: what did not end starts from its beginning.

    After a crash the start of a first attempt may not have reached the log, nor the ends of those
    before it, so every unfinished request counts as started once; but not when the owner stopped
    in good order, nor when the method's starts are committed before it runs (`if_not_started`).
    """
    for request in session.live.values():
        if request.outcome is None:
            request.restart()
            method = handlers.get(request.method)
            exact = orderly or (method is not None and method.replay == "if_not_started")
            if not exact:
                request.attempt = max(request.attempt, 1)


async def _claim(committer: Committer, sessions: Iterable[SessionState], owners: list[str]) -> None:
    for position, session in enumerate(sessions, start=1):
        committer.add(session.snapshot())
        if position % CLAIM_SLICE == 0:
            await committer.durable()
    for owner in owners:
        committer.add(Claimed(owner))
    await committer.durable()
