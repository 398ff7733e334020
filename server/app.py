"""The server process: start, serve, drain, stop.

start  listen, open the journal, seal what older processes wrote, accept connections, recover
serve  until a signal, or until a part of the server fails
drain  stop accepting, say goaway, let running requests end
stop   commit what is left, close connections with 1012, close the journal
"""

import asyncio
import gc
import os
import random
import signal
import time
from collections.abc import Coroutine, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from socket import socket as Socket  # noqa: N812 - a class
from typing import Any, Final

import structlog
import uvloop

from protocol import frames as wire
from protocol.codes import CloseCode
from server import logs, sockets
from server.addresses import Proxies
from server.admission import Admission
from server.age import AgeClock
from server.auth import Verifier
from server.boot import BEGAN
from server.connection import Connection
from server.console import console_files
from server.exposition import expose
from server.files import make_room
from server.gateway import Gateway
from server.handlers import Handlers
from server.http import AdminRoutes, HttpRoutes
from server.journal.checkpoint import Checkpointer
from server.journal.committer import Committer
from server.journal.entries import Stopped
from server.journal.log import JournalError, LogInfo, Sealed
from server.journal.opening import open_store
from server.journal.projection import Projector, project
from server.journal.state import RequestState
from server.journal.store import Store, User
from server.keys import looks_guessable
from server.listener import RESTART_REASON, Listener
from server.load import Load
from server.loading import load_handlers
from server.loop_lag import LoopLag
from server.memory import MemoryWatch, default_mark_bytes
from server.metrics import Parts, Recovery, new_registry
from server.notify import Notifier
from server.operations import Operator
from server.origins import Origins
from server.pools import Pools
from server.predecessor import replace
from server.readiness import Readiness, Unready
from server.recovery import new_owner, recover, seal_older
from server.session import Limits, Memory, Rules, Session
from server.sessions import Sessions
from server.settings import PREFIX, Settings, SettingsError
from server.sockets import LISTEN_BACKLOG
from server.tokens import issue_token
from server.users import Accounts
from server.worker import Runtime, log_end

GC_THRESHOLDS: Final = (5_000, 20, 20)
SWEEP_SECONDS: Final = 1.0
PROJECT_SECONDS: Final = 1.0
ADMIN_SOCKETS_MAX: Final = 64
"""Connections of the admin port: scrapers and probes, each for a moment."""
START_SECONDS_MAX: Final = 5.0
"""Clients told to go away are not asked to wait longer than this for the next server."""
RECONNECTS_PER_SECOND: Final = 1000
"""Clients told to go away come back spread over a time in which no more than so many come in a
second: well below what one core can greet (README, "How fast"),"""
RECONNECT_SPREAD_SECONDS_MAX: Final = 30.0
"""but over no more than this: what is more waits in the kernel's queue."""
FLUSH_SECONDS: Final = 5.0
"""How long a stopping server waits for its last commit; what is not in it is run again."""
CLOSE_SECONDS: Final = 2.0
"""How long a stopping server waits for answers to its close frames: everybody else waits, too."""

_log = structlog.get_logger(__name__)


def run(settings: Settings) -> int:
    """Run the server until it is told to stop; return the process's exit code."""
    # What was imported lives as long as the process, and what a request makes dies young: look at
    # the one never, and at the other less often than after every 700 objects.
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    return uvloop.run(App(settings).run())


class App:
    """One server process and all its parts."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._verbose = settings.log_level == "debug"
        self._started_at = time.monotonic()
        self._age_clock = AgeClock()
        self._notifier = Notifier(os.environ)
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._draining = False
        self._load = Load(settings.max_unfinished)
        self._memory = MemoryWatch(settings.memory_high_water_bytes or default_mark_bytes())
        self._successor_seconds = 0.0
        self._store: Store
        self._committer: Committer
        self._projector: Projector
        self._sessions: Sessions
        self._gateway: Gateway
        self._pools: Pools
        self._runtime: Runtime
        self._checkpointer: Checkpointer | None = None
        self._recovery = Recovery()
        self._loop_lag = LoopLag()
        self._listener: Listener
        self._admin: Listener
        self._operator: Operator

    async def run(self) -> int:
        """Start, serve, drain and stop; return 0 after an orderly stop, 1 after a failure."""
        try:
            await self._start()
        except (JournalError, OSError) as error:
            _log.critical("start_failed", error=str(error))
            return 1
        await self._stopping.wait()
        self._notifier.stopping("running requests come to their end")
        if self._failure is None:
            await self._drain()
        await self._stop()
        code = 0 if self._failure is None else 1
        if stuck := self._sessions.stuck():
            # The event loop would wait for them without end.
            _log.error("handlers_do_not_stop", methods=sorted({r.method for r in stuck}))
            logs.close()
            os._exit(code)
        return code

    # Start

    async def _start(self) -> None:
        settings = self.settings
        _warn_of_small_backlog()
        # What a setting can be wrong about comes first, before anything is begun.
        handlers = load_handlers(settings.handlers)
        verifier = Verifier.from_settings(settings)
        if settings.jwt_secret is not None and looks_guessable(settings.jwt_secret):
            _log.warning("jwt_secret_guessable", advice="make one of 32 random bytes")
        origins = _origins(settings)
        proxies = _proxies(settings)
        # Before the journal: on MongoDB, who opens it takes it over.
        public_sockets, admin_sockets = await self._listen()
        self._store = await _open_store(settings)
        owner = await new_owner(self._store.log, time.time_ns())
        self._committer = Committer(self._store.log, owner)
        await self._committer.begin()
        self._spawn(self._committer.run(), "committer")
        self._pools = Pools()
        self._runtime = Runtime(
            handlers,
            self._pools,
            self._committer,
            settings.request_timeout,
            verbose=self._verbose,
        )
        self._projector = Projector(self._store, owner, lambda: self._committer.told_seq)
        rules = self._rules(handlers, owner)
        self._sessions = Sessions(
            rules, self._runtime, settings.max_sessions, settings.max_sessions_per_subject
        )
        older = await seal_older(self._store.log, owner)
        max_connections = make_room(settings.max_connections)
        self._gateway = self._new_gateway(verifier, origins, max_connections)
        self._operator = Operator(
            self._store,
            self._committer,
            self._sessions,
            self._gateway.end,
            lambda: self._age_clock() - settings.history_ttl,
            handlers.check,
        )
        admission = Admission(
            time.monotonic,
            proxies=proxies,
            max_connections_per_address=settings.max_connections_per_address,
            handshakes_per_second=settings.handshakes_per_second,
        )
        routes = HttpRoutes(
            verifier=verifier,
            accounts=Accounts(self._store.users),
            issue=None if settings.jwt_secret is None else partial(_issue, settings),
            readiness=self._readiness,
            handlers=handlers,
            files=console_files() if settings.console == "on" else {},
            admission=admission,
        )
        self._listener = Listener(
            routes,
            self._gateway.serve,
            open_timeout_seconds=settings.auth_timeout,
            max_message_bytes=settings.max_message_bytes,
            max_connections=max_connections,
            admission=admission,
        )
        self._admin = self._new_admin(max_connections, rules.memory, verifier, admission)
        # Before the public port: who cannot be watched serves nobody.
        await self._admin.start(admin_sockets)
        await self._listener.start(public_sockets)
        self._spawn(self._recover(handlers, older), "recovery")
        self._spawn(self._sweep(), "sweep")
        self._spawn(self._loop_lag.run(), "loop_lag")
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._on_signal)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
            # The terminal was closed. That may come twice, and with a SIGTERM: never at once.
            loop.add_signal_handler(signal.SIGHUP, self._stopping.set)
        url = self._listener.url
        _log.info(
            "serving",
            version=version("queuesystem"),
            pid=os.getpid(),
            url=url,
            admin=f"http://{settings.admin_host}:{self._admin.port}",
            journal=_hide(settings.journal),
            epoch=owner,
            handlers=settings.handlers,
            window=settings.window,
            max_connections=settings.max_connections,
            max_sessions=settings.max_sessions,
            max_message_bytes=settings.max_message_bytes,
            max_result_bytes=settings.max_result_bytes,
            result_memory_bytes=settings.result_memory_bytes,
        )
        self._notifier.ready(f"serving {url}")
        self._spawn(self._notifier.keep_alive(), "watchdog")

    async def _listen(self) -> tuple[list[Socket], list[Socket]]:
        """Return the sockets of both ports, to accept from once everything is ready.

        Until then clients wait; scrapers are served by the old server as long as there is one.
        """
        settings = self.settings
        admin = (settings.admin_host, settings.admin_port, "ADMIN_PORT")
        if given := sockets.activated(os.environ):
            return given, _listen(*admin)
        # The next one will take as long to come to this point.
        self._successor_seconds = min(time.monotonic() - BEGAN, START_SECONDS_MAX)
        if settings.replace is None:
            return _listen(settings.host, settings.port, "PORT"), _listen(*admin)
        sockets.close(_listen(*admin, beside=True))  # it can, so the old one may be told to end
        ours = await replace(settings.replace, settings.host, settings.port, settings.drain_timeout)
        return ours, _listen(*admin)

    @property
    def port(self) -> int:
        """The port it listens on (useful when the configured one is 0)."""
        return self._listener.port

    def _rules(self, handlers: Handlers, epoch: str) -> Rules:
        settings = self.settings
        return Rules(
            epoch=epoch,
            limits=Limits(
                window=settings.window,
                max_unacked=settings.max_unacked,
                max_result_bytes=settings.max_result_bytes,
                max_params_bytes=settings.max_params_bytes or settings.max_message_bytes,
                requests_per_second=settings.requests_per_second,
            ),
            memory=Memory(settings.result_memory_bytes),
            journal=self._committer,
            check=handlers.check,
            note=self._note if self._verbose else self._projector.note,
            clock=time.time,
            advertised=wire.Limits(
                window=settings.window,
                max_message_bytes=settings.max_message_bytes,
                max_result_bytes=settings.max_result_bytes,
                resume_seconds=settings.session_ttl,
            ),
            server=wire.ServerInfo("queuesystem", version("queuesystem")),
            load=self._load,
        )

    def _note(self, session: Session, ended: Sequence[RequestState]) -> None:
        """Take note of what a commit of `session` has ended, and log it."""
        for request in ended:
            log_end(request, session)
        self._projector.note(session, ended)

    async def _recover(self, handlers: Handlers, older: Sequence[LogInfo]) -> None:
        """Take over what older processes left, while new sessions are being served."""
        started = time.perf_counter()
        states = await recover(self._store.log, self._committer, handlers, older)
        commands = await self._operator.pending()
        unfinished = 0
        for state in states:
            unfinished += self._sessions.recover(state).session.unfinished
        # In the same turn of the loop: what was cancelled meanwhile does not run again.
        for command in commands:
            self._operator.begin(command)
        self._sessions.recovered.set()
        seconds = time.perf_counter() - started
        self._recovery.seconds = seconds
        self._recovery.sessions = len(states)
        self._recovery.requests = unfinished
        self._spawn(self._operator.run(), "operator")
        if older:
            _log.info(
                "recovered",
                sessions=len(states),
                unfinished=unfinished,
                logs=len(older),
                seconds=round(seconds, 3),
            )
        self._spawn(self._keep_journal([info.owner for info in older]), "journal_keeper")

    def _new_gateway(self, verifier: Verifier, origins: Origins, max_connections: int) -> Gateway:
        settings = self.settings
        return Gateway(
            sessions=self._sessions,
            verifier=verifier,
            origins=origins,
            clock=time.time,
            auth_timeout_seconds=settings.auth_timeout,
            slow_consumer_timeout_seconds=settings.slow_consumer_timeout,
            outbox_bytes=settings.outbox_bytes,
            max_connections=max_connections,
            max_connections_per_subject=settings.max_connections_per_subject,
        )

    def _new_admin(
        self, max_connections: int, memory: Memory, verifier: Verifier, admission: Admission
    ) -> Listener:
        """Return the listener of the admin port, which tells of all other parts."""
        registry = new_registry(
            Parts(
                settings=self.settings,
                version=version("queuesystem"),
                max_connections=max_connections,
                readiness=self._readiness,
                memory=memory,
                memory_watch=self._memory,
                load=self._load,
                operator=self._operator,
                sessions=self._sessions,
                runtime=self._runtime,
                pools=self._pools,
                committer=self._committer,
                projector=self._projector,
                checkpointer=lambda: self._checkpointer,
                recovery=self._recovery,
                verifier=verifier,
                gateway=self._gateway,
                admission=admission,
                listener=self._listener,
                loop_lag=self._loop_lag,
            )
        )
        return Listener(
            AdminRoutes(metrics=partial(expose, registry), readiness=self._readiness),
            _no_websocket,
            open_timeout_seconds=self.settings.auth_timeout,
            max_message_bytes=self.settings.max_message_bytes,
            max_connections=0,
            spare_connections=ADMIN_SOCKETS_MAX,
        )

    def _readiness(self) -> Readiness:
        reasons: list[Unready] = []
        if self._draining:
            reasons.append(Unready.DRAINING)
        if not self._committer.available:
            reasons.append(Unready.JOURNAL_UNAVAILABLE)
        if self._load.memory_high:
            reasons.append(Unready.MEMORY_HIGH)
        return Readiness(reasons, recovering=not self._sessions.recovered.is_set())

    # Serve

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run a part of the server for as long as it lives; its failure ends the server."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._on_part_ended)

    def _on_part_ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, Sealed):
            # What still runs here is run again there: nothing of it is this server's any more.
            _log.critical(
                "journal_lost",
                reason="another server has taken over this journal: this one stops",
                error=str(error),
            )
            self._failure = error
            self._stopping.set()
        elif error is not None:
            _log.critical("part_failed", part=task.get_name(), error=str(error), exc_info=error)
            self._failure = error
            self._stopping.set()

    def _on_signal(self) -> None:
        if self._stopping.is_set():
            _log.warning("stopped_at_once", reason="second signal")
            logs.close()
            os._exit(1)
        self._stopping.set()

    async def _sweep(self) -> None:
        settings = self.settings
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            logs.sweep()
            self._gateway.sweep()
            self._listener.sweep()
            self._admin.sweep()
            self._committer.sweep()
            self._load.memory_high = self._memory.sweep()
            before = self._age_clock() - settings.result_ttl
            self._sessions.sweep(settings.session_ttl, before)

    async def _keep_journal(self, old_owners: list[str]) -> None:
        """Bring the history up to date, forget logs taken over, checkpoint, expire history."""
        store = self._store
        committer = self._committer
        projector = self._projector
        checkpointer = Checkpointer(store, committer, projector, self.settings.checkpoint_bytes)
        self._checkpointer = checkpointer
        projected = 0
        expire_at = 0.0
        while True:
            try:
                while old_owners:
                    await project(store, old_owners[0])
                    await store.log.forget(old_owners[0])
                    del old_owners[0]
                if committer.seq > projected:
                    projected = await projector.run()
                if checkpointer.due():
                    await checkpointer.checkpoint(self._sessions.checkpoint())
                if (now := time.monotonic()) >= expire_at:
                    await store.history.expire(self._age_clock() - self.settings.history_ttl)
                    expire_at = now + PROJECT_SECONDS
            except JournalError as error:
                _log.warning("journal_keeper_waits", error=str(error))
            await projector.wait(PROJECT_SECONDS)

    # Drain

    async def _drain(self) -> None:
        _log.info("draining", seconds=self.settings.drain_timeout)
        self._draining = True
        self._listener.stop_accepting()
        soonest = self._successor_seconds
        latest = soonest + self._spread_seconds()
        self._gateway.go_away("restart", partial(random.uniform, soonest, latest))
        await self._sessions.drain(self.settings.drain_timeout)

    def _spread_seconds(self) -> float:
        """Return over how many seconds the clients are to come back."""
        seconds = len(self._gateway.links) / RECONNECTS_PER_SECOND
        return min(seconds, RECONNECT_SPREAD_SECONDS_MAX)

    # Stop

    async def _stop(self) -> None:
        await self._sessions.end()
        if self._failure is None:
            self._committer.add(Stopped())
            try:
                async with asyncio.timeout(FLUSH_SECONDS):
                    await self._committer.durable()
            except TimeoutError:
                _log.error("stopped_without_last_commit", reason="the journal did not answer")
        else:
            self._listener.stop_accepting()
        await self._listener.close_all(CloseCode.RESTART, RESTART_REASON, CLOSE_SECONDS)
        self._admin.stop_accepting()
        await self._admin.close_all(CloseCode.RESTART, "", CLOSE_SECONDS)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._failure is None:
            await self._project_last()
        await self._pools.close()
        await self._store.close()
        _log.info(
            "stopped",
            uptime_seconds=round(time.monotonic() - self._started_at, 1),
            requests_ended=self._sessions.counts.requests_ended,
            sessions=len(self._sessions),
            unfinished=sum(seat.session.unfinished for seat in self._sessions),
        )

    async def _project_last(self) -> None:
        """Bring the request log up to date: the next server may come late, and finds less."""
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._projector.run()
        except (JournalError, TimeoutError) as error:
            _log.warning("journal_keeper_waits", error=str(error) or "the journal did not answer")


async def _no_websocket(_: Connection) -> None:
    """Serve nobody: AdminRoutes answers every request, so that none becomes a WebSocket."""


def _listen(host: str, port: int, setting: str, *, beside: bool = False) -> list[Socket]:
    """Listen, or raise OSError with what to change."""
    try:
        return sockets.listen(host, port, beside=beside)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror or error}, see {PREFIX}{setting}") from error


async def _open_store(settings: Settings) -> Store:
    try:
        return await open_store(settings.journal, history_ttl_seconds=settings.history_ttl)
    except ValueError as error:
        # Not chained: the cause could quote the password.
        raise SettingsError(f"QUEUESYSTEM_JOURNAL: {error}") from None


def _origins(settings: Settings) -> Origins:
    try:
        return Origins(settings.origins)
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _proxies(settings: Settings) -> Proxies:
    try:
        return Proxies(settings.trusted_proxies)
    except ValueError as error:
        raise SettingsError(f"trusted_proxies: {error}") from error


def _issue(settings: Settings, user: User) -> tuple[str, float]:
    """Make a token for somebody whose password was right; return it and its life in seconds."""
    token = issue_token(
        settings.jwt_secret or "",
        user.name,
        ttl_seconds=settings.token_ttl,
        scope=user.scope,
        audience=settings.jwt_audience,
        issuer=settings.jwt_issuer,
        now=time.time(),
    )
    return token, settings.token_ttl


def _warn_of_small_backlog() -> None:
    try:
        cap = int(Path("/proc/sys/net/core/somaxconn").read_text(encoding="ascii"))
    except OSError:
        return  # not Linux
    if cap < LISTEN_BACKLOG:
        _log.warning("listen_backlog_capped", somaxconn=cap, wanted=LISTEN_BACKLOG)


def _hide(url: str) -> str:
    """Return the journal's URL without what may be secret: user, password, options."""
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite":
        return url
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"
