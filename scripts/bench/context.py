"""What every scenario gets: how much to measure, where, and ways to start the servers.

with context.ours(window=64) as server:
    run = context.measure(server, dialects, window=16)
"""

import itertools
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import uvloop

from . import disk
from .dialects import Dialect, Echo, Queue
from .load import Point, measure
from .meter import Measurement
from .mongo import Database, mongodb_database
from .requests import EchoRequests
from .servers import Cores, Server, echo_server, new_secret, on_core, queue_server, token

WINDOW_MIN: Final = 64
"""What the server allows by default; larger windows are configured."""
SPARE_CONNECTIONS: Final = 64
SPARE_FILES: Final = 1000
"""Open files of a process that are not its connections."""
MESSAGE_BYTES: Final = 2**20


class Sizes(NamedTuple):
    """How much is measured; the defaults are those of the whole scoreboard."""

    seconds: float = 3.0
    warm_up_seconds: float = 0.5
    points: tuple[Point, ...] = (
        Point(1, 1),
        Point(1, 16),
        Point(50, 1),
        Point(50, 16),
        Point(500, 4),
        Point(1000, 4),
        Point(5000, 1),
    )
    echo_loops: tuple[str, ...] = ("uvloop", "asyncio")
    idle_sessions: tuple[int, ...] = (1_000, 10_000)
    storm_connections: int = 2_000
    storm_at_a_time: tuple[int, ...] = (50, 200)
    stream_results: int = 1_000
    large_bytes: int = 2**20
    finished: int = 100_000
    unfinished: int = 1_000
    restarts: int = 2
    """Restarts of each kind in one repetition: they vary more than other figures."""
    batches: tuple[int, ...] = (1, 10, 100, 1_000)
    commits: int = 100


class Run(NamedTuple):
    """One measurement of one server; `server_cpu_seconds` was used while it was measured."""

    measurement: Measurement
    server_cpu_seconds: float

    @property
    def server_cpu(self) -> float:
        """The share of its core that the server used."""
        return self.server_cpu_seconds / self.measurement.seconds

    @property
    def cpu_per_request(self) -> float:
        """Seconds of CPU that the server used for one request."""
        return self.server_cpu_seconds / self.measurement.requests


class Context:
    """One run of the benchmark. `journal` and `mongodb` are URLs, or None for fresh ones."""

    def __init__(
        self,
        directory: Path,
        cores: Cores | None,
        sizes: Sizes,
        *,
        files_max: int,
        journal: str | None = None,
        mongodb: str | None = None,
    ) -> None:
        self.directory = directory
        self.sizes = sizes
        self.connections_max = files_max - SPARE_FILES
        self.requests = EchoRequests()
        self.secret = new_secret()
        self.server_core = None if cores is None else cores.server
        self.load_core = None if cores is None else cores.load
        self._journal = journal
        self._mongodb = mongodb
        self._names = itertools.count(1)
        self._tokens: list[str] = []

    def tokens(self, count: int) -> list[str]:
        """Return `count` tokens, each of another subject; made once."""
        for number in range(len(self._tokens), count):
            self._tokens.append(token(self.secret, f"load-{number}"))
        return self._tokens[:count]

    def echo_dialects(self, count: int) -> list[Echo]:
        """Return what `count` connections to the bare server say."""
        return [Echo(self.requests) for _ in range(count)]

    def queue_dialects(self, count: int) -> list[Queue]:
        """Return what `count` connections to ours say: the same requests."""
        return [Queue(self.requests, one) for one in self.tokens(count)]

    def echo(
        self, loop: str = "uvloop", max_message_bytes: int = MESSAGE_BYTES
    ) -> AbstractContextManager[Server]:
        """Run the bare server."""
        return echo_server(self.directory, self.server_core, loop, max_message_bytes)

    @contextmanager
    def ours(
        self, *, connections: int = 1, window: int = 1, **settings: object
    ) -> Generator[Server]:
        """Run our server, with room for so many connections, on a journal of its own.

        A journal that the command line names is used again, and not removed.
        """
        needed = {
            "window": max(WINDOW_MIN, window),
            "max_connections": connections + SPARE_CONNECTIONS,
        }
        with self.fresh_sqlite() as fresh:
            all_settings = {"journal": self._journal or fresh} | needed | settings
            with queue_server(self.directory, self.server_core, self.secret, all_settings) as one:
                yield one

    @contextmanager
    def fresh_sqlite(self) -> Generator[str]:
        """Return the URL of a SQLite file that is not there yet; it is removed afterwards."""
        name = f"journal-{next(self._names)}.db"
        try:
            yield f"sqlite:///{self.directory / name}"
        finally:
            for path in self.directory.glob(f"{name}*"):
                path.unlink()

    def mongodb(self) -> AbstractContextManager[Database]:
        """Run a MongoDB beside the load, or take that of the command line."""
        return mongodb_database(self.directory, self.load_core, self._mongodb)

    def measure(
        self,
        server: Server,
        dialects: Sequence[Dialect],
        window: int,
        at_edges: Callable[[], None] = lambda: None,
    ) -> Run:
        """Put load on a server for as long as the sizes say.

        `at_edges` is called when the measured time begins, and when it is over.
        """
        cpu: list[float] = []

        def note() -> None:
            cpu.append(server.cpu_seconds())
            at_edges()

        with on_core(self.load_core):
            measurement = uvloop.run(
                measure(
                    server.url,
                    dialects,
                    window,
                    warm_up_seconds=self.sizes.warm_up_seconds,
                    seconds=self.sizes.seconds,
                    at_edges=note,
                )
            )
        return Run(measurement, cpu[1] - cpu[0])

    def disk(self, size: int = disk.SMALL_BYTES) -> disk.Syncs:
        """Measure the disk below the journals, from the core of the server."""
        with on_core(self.server_core):
            return disk.probe(self.directory, size)
