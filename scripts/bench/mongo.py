"""A MongoDB for the measurements: that of the command line, or a SecantusDB started here.

SecantusDB speaks MongoDB's wire protocol and comes from PyPI with the development environment.
It syncs its log on every commit, as ours asks of any MongoDB (`j: true`).
"""

import os
import secrets
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from pymongo import MongoClient

from scripts.ports import free_port, listens

from .scenario import NotMeasured
from .servers import Server, ServerFailed, process

START_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.05
EXECUTABLE: Final = Path(sys.executable).with_name("secantusd-py")


class Database(NamedTuple):
    """A database nobody has used; `server` is its process, when it was started here."""

    url: str
    server: Server | None

    def cpu_seconds(self) -> float:
        """Return what the database's process has used so far; 0 when that is not known."""
        return 0.0 if self.server is None else self.server.cpu_seconds()


@contextmanager
def mongodb_database(directory: Path, core: int | None, url: str | None) -> Generator[Database]:
    """Make a database, in the MongoDB at `url` or in one that is started on that core.

    It is removed afterwards. Raises NotMeasured when there is no MongoDB.
    """
    name = f"benchmark_{secrets.token_hex(6)}"
    if url is None:
        with _secantusdb(directory, core, name) as database:
            yield database
        return
    try:
        yield Database(urlsplit(url)._replace(path=f"/{name}").geturl(), None)
    finally:
        with MongoClient[Any](url) as client:
            client.drop_database(name)


@contextmanager
def _secantusdb(directory: Path, core: int | None, name: str) -> Generator[Database]:
    if not EXECUTABLE.exists():
        raise NotMeasured("no MongoDB: give --mongodb URL, or install secantusdb")
    port = free_port()
    command = [
        str(EXECUTABLE),
        "--host=127.0.0.1",
        f"--port={port}",
        f"--storage-path={directory / name}",
        "--sync-on-commit",
        "--log-level=WARNING",
    ]
    with process(command, os.environ, directory / "mongodb.log", core) as daemon:
        deadline = time.monotonic() + START_SECONDS
        while not listens(port):
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise ServerFailed("SecantusDB did not start")
            time.sleep(POLL_SECONDS)
        url = f"mongodb://127.0.0.1:{port}/{name}"
        yield Database(url, Server(daemon, url))
