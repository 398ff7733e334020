"""Whole logs as the state they leave: for recovery, and for operators while somebody writes them.

logs, newest first, but those that a newer one claimed -> fold each -> their sessions
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from server.journal.entries import decode_commit
from server.journal.log import Commit, Damaged, LogInfo, LogReader, Unavailable
from server.journal.state import SessionState, State, fold

TRIES: Final = 10
"""A log that is trimmed or forgotten while it is read is read again; so often at most."""


async def fold_log(log: LogReader, info: LogInfo) -> State:
    """Return what a log says behind its last checkpoint. Raises Damaged."""
    state = State()
    seq = info.trimmed
    async for commit in log.read(info.owner, info.trimmed):
        seq += 1
        try:
            _fold_commit(state, seq, commit)
        except Damaged as error:
            raise Damaged(f"commit {seq} of the log of {info.owner}: {error}") from error
        await asyncio.sleep(0)  # a server serves new sessions meanwhile
    return state


def _fold_commit(state: State, seq: int, commit: Commit) -> None:
    if commit.seq != seq:
        raise Damaged("it is missing")
    fold(state, decode_commit(commit.data))


async def fold_unclaimed(
    logs: Sequence[LogInfo], fold_one: Callable[[LogInfo], Awaitable[State]]
) -> list[State]:
    """Fold `logs`, given oldest first, but those whose sessions a newer one has; oldest first."""
    states: list[State] = []
    claimed: set[str] = set()
    for info in reversed(logs):
        # Who claims a log is newer than it. What was claimed need not be read: after many deaths
        # in a row, before such logs were forgotten, recovery would take longer each time.
        if info.owner not in claimed:
            state = await fold_one(info)
            states.append(state)
            claimed |= state.claimed
    return states[::-1]


async def living_sessions(log: LogReader) -> dict[str, SessionState]:
    """Return the sessions that are not over, as the logs say at this moment.

    Nothing is written and nobody is waited for, whoever else reads and writes the logs. Raises
    Damaged, and Unavailable when the logs change faster than they can be read.
    """
    for _ in range(TRIES):
        logs = await log.owners()
        try:
            states = await fold_unclaimed(logs, lambda info: fold_log(log, info))
        except Damaged:
            if await log.owners() == logs:
                raise
            continue  # trimmed meanwhile: a checkpoint behind it says the same
        if {info.owner for info in logs} <= {info.owner for info in await log.owners()}:
            sessions: dict[str, SessionState] = {}
            for state in states:
                sessions |= state.sessions
            return sessions
        # One was forgotten, perhaps before it was read to its end: a newer one has its sessions.
    raise Unavailable("the journal changes faster than it can be read: try again")
