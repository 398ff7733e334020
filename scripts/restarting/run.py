"""A run: users begin -> restart ... restart -> users finish -> the journal at rest -> verdict."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from scripts.checking.history import Disconnect, Start, Writer, read
from scripts.checking.report import check_directory
from scripts.crashing.serverlog import complaint
from scripts.crashing.stage import SERVE, SETTINGS, Broken, Stage

from .options import Options
from .recording import recorded
from .user import Seen, User

SPARE_SECONDS: Final = 2.0
"""So much longer than the restart a request may take."""
LOAD_SECONDS: Final = (1.0, 2.0)
"""Between two restarts, and before and after them: between these."""
FINISH_SECONDS: Final = 60.0
"""How long everything may take to come to its end when nothing new is asked for."""
POLL_SECONDS: Final = 0.005


@dataclass
class Restart:
    """One restart: its SIGTERM (monotonic seconds), how long until the next server was ready,
    and the longest request that ended after it and before the next.
    """

    at: float
    seconds: float
    longest_seconds: float = 0.0

    @property
    def allowed_seconds(self) -> float:
        """How long a request may take."""
        return self.seconds + SPARE_SECONDS


@dataclass
class Run:
    """A run and what came of it. `broken` says what must not have been."""

    options: Options
    directory: Path
    restarts: list[Restart] = field(default_factory=list[Restart])
    seen: Seen = field(default_factory=Seen)
    codes: Counter[int | None] = field(default_factory=Counter[int | None])
    checks: int = 0
    broken: list[str] = field(default_factory=list[str])

    @property
    def slow(self) -> list[Restart]:
        """The restarts during which a request took longer than it may."""
        return [one for one in self.restarts if one.longest_seconds > one.allowed_seconds]

    async def run(self) -> None:
        """Do it."""
        settings = {**SETTINGS, "drain_timeout": 10}
        stage = Stage(self.directory, self.options.journal, SERVE, settings)
        stage.episode = self.directory / "history"
        stage.episode.mkdir()
        try:
            with Writer(stage.episode, "clients") as history, recorded(history):
                stage.history = history
                await self._under_load(stage)
                await stage.stop()
                if await stage.durable():
                    self.broken.append("requests are unfinished in the journal at the end")
                history.write("quiet")
        except (Broken, TimeoutError) as error:
            self.broken.append(f"{type(error).__name__}: {error}")
        except ExceptionGroup as errors:
            self.broken += [f"{type(error).__name__}: {error}" for error in errors.exceptions]
        finally:
            await stage.close()
        if line := complaint(self.directory / "history/server.log"):
            self.broken.append(f"the server says: {line}")
        self._judge()

    async def _under_load(self, stage: Stage) -> None:
        dice = Random(self.options.seed)  # noqa: S311 - a plan is no secret
        await stage.database_up()
        await stage.up()
        await stage.server.listening()
        url = f"ws://127.0.0.1:{stage.place.port}/ws"
        users: list[User] = []
        async with asyncio.timeout(None) as patience, asyncio.TaskGroup() as tasks:
            for number in range(self.options.clients):
                name = f"u{number}"
                own = Random(dice.random())  # noqa: S311
                users.append(User(name, url, stage.token(name), self.seen, own))
                tasks.create_task(users[-1].run())
            await _all_online(users)
            for _ in range(self.options.restarts):
                await asyncio.sleep(dice.uniform(*LOAD_SECONDS))
                self.restarts.append(await self._restart(stage))
                await _all_online(users)  # or a request would be hit by two restarts
            await asyncio.sleep(dice.uniform(*LOAD_SECONDS))
            for user in users:
                user.finishing.set()
            patience.reschedule(asyncio.get_running_loop().time() + FINISH_SECONDS)

    async def _restart(self, stage: Stage) -> Restart:
        if self.options.replace:
            at = await stage.replace()
        else:
            at = time.monotonic()
            await stage.stop()
            await stage.up()
        await _ready(stage.place.port)
        return Restart(at, time.monotonic() - at)

    def _judge(self) -> None:
        for restart, after in zip(
            self.restarts, [*(one.at for one in self.restarts[1:]), float("inf")], strict=False
        ):
            took = [end - begin for begin, end in self.seen.spans if restart.at <= end < after]
            restart.longest_seconds = max(took, default=0.0)
        lost = self.seen.asked - len(self.seen.spans)
        if lost:
            self.broken.append(f"{lost} requests were not answered")
        history = self.directory / "history"
        report = check_directory(history)
        self.checks = sum(report.checks.values())
        if report.violation is not None:
            self.broken.append(report.explanation)
        started: Counter[tuple[str, int]] = Counter()
        for event in read(history):
            if isinstance(event, Start):
                started[event.session, event.n] += 1
            elif isinstance(event, Disconnect):
                self.codes[event.code] += 1
        again = sum(count > 1 for count in started.values())
        if again:
            self.broken.append(f"{again} requests ran more than once")


async def _all_online(users: Sequence[User]) -> None:
    while not all(user.online for user in users):  # noqa: ASYNC110 - the client tells nobody
        await asyncio.sleep(POLL_SECONDS)


async def _ready(port: int) -> None:
    """Wait until the server says that it is."""
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            head = await reader.read(16)
            writer.close()
        except OSError:
            head = b""
        if head.startswith(b"HTTP/1.1 200 "):
            return
        await asyncio.sleep(POLL_SECONDS)
