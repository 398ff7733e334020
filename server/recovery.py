"""Recovery: take over what earlier owners left, under a new epoch, losing nothing.

    seal every older log -> [listen] -> fold them, oldest first -> prepare each session
    -> snapshots and `claimed` entries into the own log -> [committed] sessions go on

New sessions are served from the moment the older logs are sealed; who wants to resume an old one
waits until it was taken over.

Two processes that recover at once are told apart by age: the newest wins, the others find their
logs (or the seals they tried to write) taken and stop.
"""

import asyncio
import secrets
from collections.abc import Iterable
from typing import Final

import structlog

from server.handlers import Handlers
from server.journal.committer import Committer
from server.journal.entries import Claimed, decode_commit
from server.journal.log import Commit, Damaged, Log, LogInfo, Sealed, Unavailable
from server.journal.state import SessionState, State, fold

CLAIM_SLICE: Final = 100
"""Sessions claimed per commit."""
RETRY_SECONDS: Final = 1.0
"""Wait before a log that could not be read to its end is read again."""

_log = structlog.get_logger(__name__)


async def new_owner(log: Log, time_ns: int) -> str:
    """Return a name for this process's log that sorts after all others, whatever the clock says."""
    owners = await log.owners()
    names = [name for info in owners for name in (info.owner, info.sealed_by) if name is not None]
    newest = max((int(name.partition("-")[0], 16) for name in names), default=0)
    return f"{max(time_ns, newest + 1):016x}-{secrets.token_hex(4)}"


async def seal_older(log: Log, owner: str) -> list[LogInfo]:
    """Seal every other log in `owner`'s name; return them, oldest first.

    From here on nobody else writes, and the old sessions can be taken over at leisure. Raises
    Sealed, having sealed none of its logs, when a newer owner is there.
    """
    older = {info.owner: info for info in await log.owners() if info.owner != owner}
    unsealed = sorted(older, reverse=True)
    for name in unsealed:  # which grows
        sealed_by = owner if name > owner else await log.seal(name, owner)
        if max(name, sealed_by) > owner:
            raise Sealed("a newer server has taken over this journal")
        if sealed_by != owner and sealed_by not in older:
            # It sealed that log and came no further: it has written nothing of its own, so its
            # log is not listed. Should it only be paused, it must not take the sessions over, too.
            older[sealed_by] = LogInfo(sealed_by, 0, None)
            unsealed.append(sealed_by)
    return [older[name] for name in sorted(older)]


async def recover(
    log: Log, committer: Committer, handlers: Handlers, older: Iterable[LogInfo]
) -> list[SessionState]:
    """Fold the sealed logs `older` and claim their sessions; durable when it returns them.

    Raises Damaged when a log does not say what was written to it.
    """
    states = {info.owner: await _fold(log, info) for info in older}
    claimed = {owner for state in states.values() for owner in state.claimed}
    sessions: dict[str, SessionState] = {}
    for owner, state in states.items():
        if owner not in claimed:
            for session in state.sessions.values():
                prepare(session, handlers, orderly=state.stopped)
            sessions.update(state.sessions)
    await _claim(committer, sessions.values(), list(states))
    return list(sessions.values())


async def _fold(log: Log, info: LogInfo) -> State:
    while True:
        try:
            return await _fold_once(log, info)
        except Unavailable as error:
            # Not the end of the server: its new sessions wait for the same store.
            _log.warning("recovery_waits", owner=info.owner, error=str(error))
            await asyncio.sleep(RETRY_SECONDS)


async def _fold_once(log: Log, info: LogInfo) -> State:
    state = State()
    seq = info.trimmed
    async for commit in log.read(info.owner, info.trimmed):
        seq += 1
        try:
            _fold_commit(state, seq, commit)
        except Damaged as error:
            raise Damaged(f"commit {seq} of the log of {info.owner}: {error}") from error
        await asyncio.sleep(0)  # new sessions are being served meanwhile
    return state


def _fold_commit(state: State, seq: int, commit: Commit) -> None:
    if commit.seq != seq:
        raise Damaged("it is missing")
    fold(state, decode_commit(commit.data))


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
