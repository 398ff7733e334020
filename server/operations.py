"""What operators ask for, carried out: commands out of the store, by the doors that clients use.

    every POLL_SECONDS: the pending commands, oldest first
    -> begin: cancel, close, or run again   -> settled when what it leads to is durable

A command is judged by what is, not by what was done for it: so one that was carried out, but not
settled when the process was killed, is found carried out. Until it can be settled it is begun
again with every look, which changes nothing. What is run again is a new request, alone in a session
whose id is made of the command's: if that is known, it was begun.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

import structlog
from msgspec import Raw

from protocol.codes import ErrorCode
from protocol.frames import Request
from server.journal.committer import Committer
from server.journal.log import JournalError
from server.journal.store import CARRIED_OUT, REFUSED, Command, Failed, Query, Store
from server.journal.tail import find_now
from server.session import Refused
from server.sessions import Seat, Sessions

POLL_SECONDS: Final = 0.5
EXPIRE_SECONDS: Final = 60.0
COMMANDS_MAX: Final = 1000
"""Commands looked at in one go; further ones wait until some of these are settled."""

NOT_KEPT: Final = (
    "its params are not kept: they are of the last requests that ended with an error, of those not "
    "longer than 16 KiB, for as long as the request log is kept"
)

_log = structlog.get_logger(__name__)


class Settled(NamedTuple):
    """What became of a command; `outcome` is for its operator."""

    status: str
    outcome: str


class Operator:
    """Carries out the commands of one store.

    `end_connection(session)` closes the connection of a session, if it has one. `expire_before`
    says of when the oldest commands may be, as a Unix time. `check` is that of session.Rules.
    `settled` counts by status.
    """

    def __init__(
        self,
        store: Store,
        committer: Committer,
        sessions: Sessions,
        end_connection: Callable[[str], None],
        expire_before: Callable[[], float],
        check: Callable[[str, Raw, str], object],
    ) -> None:
        self.settled = {CARRIED_OUT: 0, REFUSED: 0}
        self._store = store
        self._committer = committer
        self._sessions = sessions
        self._end_connection = end_connection
        self._expire_before = expire_before
        self._check = check

    async def pending(self) -> Sequence[Command]:
        """Return what is to be done, as soon as the store can say so."""
        while True:
            try:
                return await self._store.commands.pending(COMMANDS_MAX)
            except JournalError as error:
                _log.warning("operator_waits", error=str(error))
                await asyncio.sleep(POLL_SECONDS)

    def begin(self, command: Command) -> None:
        """Begin a cancel or close at once. So recovery ends requests before they run again."""
        name, n = _target(command)
        seat = self._sessions.get(name)
        if seat is None:
            return
        if command.kind == "cancel":
            seat.session.cancel(n)
        elif command.kind == "close":
            self._close(seat, cancel=False)
        elif command.kind == "close_and_cancel":
            self._close(seat, cancel=True)

    async def run(self) -> None:
        """Carry out commands for ever."""
        loop = asyncio.get_running_loop()
        expire_at = 0.0
        while True:
            for command in await self.pending():
                await self._try(command)
            if loop.time() >= expire_at:
                expire_at = loop.time() + EXPIRE_SECONDS
                try:
                    await self._store.commands.expire(self._expire_before())
                except JournalError as error:
                    _log.warning("operator_waits", error=str(error))
            await asyncio.sleep(POLL_SECONDS)

    async def _try(self, command: Command) -> None:
        try:
            await self._carry_out(command)
        except JournalError as error:
            _log.warning("operator_waits", command=command.id, error=str(error))
        except Exception:
            # A bug of ours; it must not be met again with every look, nor end the server.
            _log.exception("operator_failed", command=command.id, kind=command.kind)
            with suppress(JournalError):
                outcome = "the server failed at it: see its log"
                await self._store.commands.settle(command.id, REFUSED, outcome)

    async def _carry_out(self, command: Command) -> None:
        self.begin(command)
        if command.kind == "cancel":
            settled = await self._cancelled(command)
        elif command.kind in {"close", "close_and_cancel"}:
            settled = await self._closed(command)
        elif command.kind == "retry":
            settled = await self._retried(command)
        else:
            settled = Settled(REFUSED, f"this server knows no command {command.kind!r}")
        if settled is None:
            return
        await self._store.commands.settle(command.id, settled.status, settled.outcome)
        self.settled[settled.status] += 1
        _log.info(
            "operator_command",
            kind=command.kind,
            target=command.target,
            status=settled.status,
            outcome=settled.outcome,
        )

    async def _cancelled(self, command: Command) -> Settled | None:
        name, n = _target(command)
        seat = self._sessions.get(name)
        request = None if seat is None else seat.session.state.live.get(n)
        if request is not None:
            if request.outcome is None:
                await asyncio.sleep(0)  # a handler that lets go does it now
            if request.outcome is None:
                return None
            await self._committer.durable()
            return _verdict(request.outcome)
        rows = await find_now(self._store, Query(session=name, n=n, limit=1))
        if not rows:
            return Settled(REFUSED, f"there is no request {command.target}")
        return _verdict(rows[0].state)

    async def _retried(self, command: Command) -> Settled | None:
        name = f"retry-{command.id}"
        begun = Settled(CARRIED_OUT, f"runs again as {name}:1")
        if self._sessions.get(name) is None:
            if await find_now(self._store, Query(session=name, n=1, limit=1)):
                return begun
            failed = await self._store.history.failed(*_target(command))
            if failed is None:
                return Settled(REFUSED, NOT_KEPT)
            try:
                self._check(failed.method, Raw(failed.params.encode()), failed.scope)
            except Refused as refused:
                return Settled(REFUSED, f"{refused.code}: {refused}")
            if not self._run_again(name, failed, f"retry of {command.target}"):
                return None
        await self._committer.durable()
        return begun

    def _run_again(self, name: str, failed: Failed, request_id: str) -> bool:
        """Begin a request as `failed` was; tell whether there was room for it.

        Nobody will ask for its results: they are counted, and its end is in the request log.
        """
        seat = self._sessions.adopt(name, failed.subject, failed.scope)
        request = Request(
            request_id, failed.method, Raw(failed.params.encode()), timeout=failed.timeout
        )
        seat.session.receive([request], None)
        seat.session.close(cancel=False)
        self._sessions.drop_if_over(seat)  # when it was not accepted
        return seat.session.unfinished > 0

    def _close(self, seat: Seat, *, cancel: bool) -> None:
        session = seat.session
        if cancel:
            for request in list(session.state.live.values()):
                session.cancel(request.n)
        session.close(cancel=False, why="operator")
        self._end_connection(session.state.id)

    async def _closed(self, command: Command) -> Settled | None:
        name, _ = _target(command)
        await asyncio.sleep(0)  # handlers that let go do it now
        seat = self._sessions.get(name)
        unfinished = 0 if seat is None else seat.session.unfinished
        if unfinished and command.kind == "close_and_cancel":
            return None
        await self._committer.durable()
        runs_on = f", {unfinished} of its requests still run to their end" if unfinished else ""
        return Settled(CARRIED_OUT, f"session {name} is closed{runs_on}")


def _target(command: Command) -> tuple[str, int]:
    """Return session and n, 0 for a session as a whole."""
    if command.kind in {"close", "close_and_cancel"}:
        return command.target, 0
    session, _, n = command.target.rpartition(":")
    return session, int(n) if n.isascii() and n.isdigit() else 0


def _verdict(outcome: str) -> Settled | None:
    if outcome == ErrorCode.CANCELLED:
        return Settled(CARRIED_OUT, "cancelled")
    if outcome in {"waiting", "running"}:
        return None
    return Settled(REFUSED, f"it has ended already: {outcome}")
