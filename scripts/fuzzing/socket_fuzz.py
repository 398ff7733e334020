"""The socket fuzzer: a real server, hostile peers, and clients that work meanwhile.

    server -> clients at work -> look -> warm-up -> hostile messages -> peers leave -> look

It fails when a client gets anything else than all its results in order, when the server logs a
failure, when its memory grows after the warm-up, and when tasks, files, connections or sessions
are left over in the end.
"""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from protocol.client import connect
from scripts.bench.servers import SERVER_LOG, new_secret, queue_server
from server.tokens import issue_token

from .dialogue import Tokens
from .peers import Crowd
from .watch import Watch
from .wellbehaved import WellBehaved

SETTINGS: Final = {
    "handlers": "scripts.fuzzing.handlers:handlers",
    "window": 8,
    "max_message_bytes": 16 * 1024,
    "max_result_bytes": 64 * 1024,
    "max_unacked": 16,
    "outbox_bytes": 4096,
    "max_sessions": 200,
    "max_connections": 64,
    "checkpoint_bytes": 2**20,
    "auth_timeout": 1,
    "slow_consumer_timeout": 1,
    "session_ttl": 2,
    "history_ttl": 2,
}
"""Bounds that are reached all the time, and times that are over soon."""
SUBJECTS: Final = 6
CLIENTS: Final = 4
PEERS: Final = 24
WARM_UP: Final = 0.2
"""The memory after this share of the messages is what the one in the end is compared with."""
GROWTH_MAX: Final = 1.15
GROWTH_MESSAGES: Final = 200_000
"""Shorter runs say nothing about memory: the allocator is still filling up."""
PROGRESS_SECONDS: Final = 0.5
SETTLE_SECONDS: Final = 30.0


@dataclass
class Report:
    """What came out; `problems` is empty when all went well. Sizes in bytes, times in seconds."""

    seed: str
    messages: int = 0
    seconds: float = 0.0
    peers: dict[str, int] = field(default_factory=dict[str, int])
    checked: int = 0
    memory_warm: int = 0
    memory_end: int = 0
    before: dict[str, int] = field(default_factory=dict[str, int])
    after: dict[str, int] = field(default_factory=dict[str, int])
    log_lines: dict[str, int] = field(default_factory=dict[str, int])
    problems: list[str] = field(default_factory=list[str])

    def text(self) -> str:
        """Return it for people."""
        growth = self.memory_end / self.memory_warm if self.memory_warm else 0
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.peers.items()))
        warm, end = self.memory_warm / 2**20, self.memory_end / 2**20
        lines = [
            f"seed {self.seed}: {self.messages:,} messages in {self.seconds:.0f} s, peers: {kinds}",
            f"well-behaved clients checked {self.checked:,} requests",
            f"memory {warm:.1f} MiB after {WARM_UP:.0%}, {end:.1f} MiB in the end: {growth:.3f}",
            f"before {json.dumps(self.before)}",
            f"after  {json.dumps(self.after)}",
            f"log {json.dumps(self.log_lines)}",
            *(f"PROBLEM: {problem}" for problem in self.problems),
        ]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return asdict(self)


async def run(
    directory: Path, messages: int, seed: str, say: Callable[[str], None], only: int | None = None
) -> Report:
    """Fuzz a server of its own, whose files are in `directory`; with `only`, by that one peer."""
    report = Report(seed)
    secret = new_secret()
    settings = SETTINGS | {"journal": f"sqlite:///{directory / 'fuzz.db'}"}
    with queue_server(directory, None, secret, settings) as server:
        port = int(server.url.rpartition(":")[2])
        watch = Watch(server.pid, directory / SERVER_LOG)
        crowd = Crowd(port, seed, _tokens(secret))
        clients = [
            WellBehaved(f"{server.url}/ws", _token(secret, f"good-{k}"), f"{seed}/good/{k}")
            for k in range(CLIENTS)
        ]
        begun = time.monotonic()
        async with AsyncExitStack() as stack:
            look = await _looking(stack, f"{server.url}/ws", secret)
            working = [asyncio.Event() for _ in clients]
            tasks = [
                asyncio.create_task(client.run(event))
                for client, event in zip(clients, working, strict=True)
            ]
            for event in working:
                await event.wait()  # then they have all that they will have
            report.before = await look()
            if only is None:
                fuzz = asyncio.create_task(crowd.run(messages, PEERS))
            else:
                fuzz = asyncio.create_task(crowd.one(only, messages))
            await _follow(fuzz, tasks, crowd, watch, report, messages, say)
            report.after = await _settled(look, report.before)
            report.memory_end = watch.memory_bytes()
            for client in clients:
                client.leave()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if result is not None:
                    report.problems.append(f"a well-behaved client: {result!r}")
        watch.read_log()
        report.seconds = time.monotonic() - begun
    report.messages = crowd.sent
    report.peers = dict(crowd.kinds)
    report.checked = sum(client.checked for client in clients)
    report.log_lines = dict(watch.levels)
    _judge(report, watch)
    return report


async def _follow(
    fuzz: "asyncio.Task[None]",
    clients: Sequence["asyncio.Task[None]"],
    crowd: Crowd,
    watch: Watch,
    report: Report,
    messages: int,
    say: Callable[[str], None],
) -> None:
    """Look at the server while it is fuzzed; end early when something is wrong."""
    while not fuzz.done():
        await asyncio.wait([fuzz, *clients], timeout=PROGRESS_SECONDS)
        memory = watch.memory_bytes()
        if not report.memory_warm and crowd.sent >= messages * WARM_UP:
            report.memory_warm = memory
        say(f"{crowd.sent:,} messages, {memory / 2**20:.1f} MiB, {watch.files()} files")
        if failed := watch.read_log():
            say(f"after {crowd.sent} messages, while there were {sorted(crowd.alive)}:")
            say(failed[0])
            fuzz.cancel()
        if any(client.done() for client in clients):
            fuzz.cancel()
    report.memory_warm = report.memory_warm or watch.memory_bytes()


async def _looking(stack: AsyncExitStack, url: str, secret: str) -> Callable[[], Any]:
    token = _token(secret, "looker", "look")
    session = await stack.enter_async_context(connect(url, token=token))

    async def look() -> dict[str, int]:
        return await session.request("look", collect=True)

    return look


async def _settled(look: Callable[[], Any], before: dict[str, int]) -> dict[str, int]:
    """Look until there is no more than before, or it takes too long."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        after: dict[str, int] = await look()
        if not _more(before, after) or time.monotonic() > deadline:
            return after
        await asyncio.sleep(PROGRESS_SECONDS)


def _more(before: dict[str, int], after: dict[str, int]) -> list[str]:
    """Return of what there is more; threads stay in their pool, which has a bound of its own."""
    return [name for name, count in after.items() if count > before[name] and name != "threads"]


def _judge(report: Report, watch: Watch) -> None:
    report.problems += [f"the log says: {line}" for line in watch.failures[:5]]
    report.problems += [
        f"{name}: {report.after[name]} in the end, {report.before[name]} before"
        for name in _more(report.before, report.after)
    ]
    grown = report.memory_end > report.memory_warm * GROWTH_MAX
    if grown and report.messages >= GROWTH_MESSAGES:
        report.problems.append("the memory grew after the warm-up")


def _tokens(secret: str) -> list[Tokens]:
    foreign = _token(secret, "somebody-else")
    return [
        Tokens(
            [_token(secret, subject), _token(secret, subject, "admin")],
            [
                foreign,
                _token(new_secret(), subject),
                _token(secret, subject, ttl_seconds=-60),
                "a.b.c",
                "",
            ],
        )
        for subject in (f"bad-{k}" for k in range(SUBJECTS))
    ]


def _token(secret: str, subject: str, scope: str | None = None, ttl_seconds: float = 86_400) -> str:
    return issue_token(
        secret,
        subject,
        ttl_seconds=ttl_seconds,
        scope=scope,
        audience=None,
        issuer=None,
        now=time.time(),
    )
