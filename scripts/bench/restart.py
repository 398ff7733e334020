"""How long a killed server takes to come back, whatever its journal holds.

    copy of the journal -> exec -> /readyz says yes -> every unfinished session is resumed

Three journals, made by servers that worked and were killed: one without history, one with many
finished requests in sessions that are still open, one with unfinished requests besides. The
manifests of the resumed sessions must hold every unfinished request.
"""

import http.client
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from statistics import median
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import uvloop

from protocol import frames as wire

from . import histories
from .context import Context
from .dialects import Violation
from .histories import History, Sleeper
from .scenario import Outcome
from .scoreboard import Figure, Target
from .servers import Server, ServerFailed, on_core, queue_server
from .stats import Spread
from .tables import aligned
from .talk import Talk

NOISE_MIN: Final = 1.1
"""Ratios up to this are noise, even when the restarts without history differ less."""
POLL_SECONDS: Final = 0.002
READY_SECONDS: Final = 120.0
PROBE_SECONDS: Final = 60.0
_HEAD: Final = ("journal", "ready ms (min-max)", "sessions resumed ms (min-max)")


class _Restart(NamedTuple):
    """Seconds since exec; `resumed` is `ready` where there is no session to resume."""

    ready_seconds: float
    resumed_seconds: float


class Restart:
    """See scenario.Scenario."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._histories: list[History] = []
        self._restarts: dict[str, list[_Restart]] = {}

    def repeat(self) -> None:
        self._histories = self._histories or self._make()
        for _ in range(self._context.sizes.restarts):
            for history in self._histories:
                restarts = self._restarts.setdefault(history.name, [])
                restarts.append(self._restart(history))

    def _make(self) -> list[History]:
        finished = self._context.sizes.finished
        unfinished = self._context.sizes.unfinished
        return [
            histories.make(self._context, name, finished=old, unfinished=new)
            for name, old, new in (
                ("no history", 0, 0),
                (f"{finished:,} finished", finished, 0),
                (f"{finished:,} finished, {unfinished:,} unfinished", finished, unfinished),
            )
        ]

    def _restart(self, history: History) -> _Restart:
        context = self._context
        directory = context.directory / "restarted"
        # A restart changes the journal. (What is copied is in memory, as after a crash of the
        # process, but not of the machine.)
        shutil.copytree(history.directory, directory)
        try:
            settings = {"journal": histories.url(directory)}
            began = time.perf_counter()
            with (
                queue_server(
                    context.directory, context.server_core, context.secret, settings, wait=False
                ) as server,
                on_core(context.load_core),
            ):
                _wait_until_ready(server)
                ready = time.perf_counter() - began
                if history.sleepers:
                    uvloop.run(resume_all(server.url, history.sleepers))
                resumed = time.perf_counter() - began if history.sleepers else ready
                server.kill()
        finally:
            shutil.rmtree(directory)
        return _Restart(ready, resumed)

    def outcome(self) -> Outcome:
        lines = [
            (
                history.name,
                f"{Spread.of(one.ready_seconds * 1000 for one in restarts):.0f}",
                f"{Spread.of(one.resumed_seconds * 1000 for one in restarts):.0f}"
                if history.sleepers
                else "",
            )
            for history in self._histories
            for restarts in (self._restarts[history.name],)
        ]
        data = {
            "journals": [
                {
                    "name": name,
                    "ready_seconds": median(one.ready_seconds for one in restarts),
                    "resumed_seconds": median(one.resumed_seconds for one in restarts),
                }
                for name, restarts in self._restarts.items()
            ]
        }
        return Outcome(self._figures(), aligned(_HEAD, lines), data)

    def _figures(self) -> list[Figure]:
        bare, *others = self._histories
        base = [one.ready_seconds for one in self._restarts[bare.name]]
        noise = max(NOISE_MIN, max(base) / median(base))
        figures: list[Figure] = []
        for history in others:
            restarts = self._restarts[history.name]
            times = [("ready", [one.ready_seconds for one in restarts])]
            if history.sleepers:
                times.append(("resumed", [one.resumed_seconds for one in restarts]))
            for what, seconds in times:
                figures.append(
                    Figure(
                        f"restart until {what}, {history.name}",
                        f"{median(seconds) * 1000:.0f} ms",
                        f"ready without history {median(base) * 1000:.0f} ms",
                        Spread.of_ratios(seconds, base),
                        # New sessions are served at once; who resumes waits for the fold.
                        Target(noise, at_least=False) if what == "ready" else None,
                    )
                )
        return figures


def _wait_until_ready(server: Server) -> None:
    address = urlsplit(server.url)
    deadline = time.monotonic() + READY_SECONDS
    while not _is_ready(address.hostname or "", address.port or 0):
        server.check()
        if time.monotonic() > deadline:
            raise ServerFailed(f"not ready {READY_SECONDS:g} seconds after a restart")
        time.sleep(POLL_SECONDS)


def _is_ready(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=PROBE_SECONDS)
    with suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    return False


async def resume_all(url: str, sleepers: Sequence[Sleeper]) -> None:
    """Resume all, one after the other; raises Violation when something is not there any more."""
    for sleeper in sleepers:
        talk = await Talk.open(url)
        (welcome,) = await talk.ask([sleeper.hello])
        if not (isinstance(welcome, wire.Welcome) and welcome.resumed):
            raise Violation(f"a session was not resumed after a restart: {welcome}")
        if len(welcome.requests) != sleeper.unfinished:
            raise Violation(
                f"{sleeper.unfinished} requests of a session were accepted, but after a restart "
                f"there are {len(welcome.requests)}"
            )
        talk.abort()
