"""The methods of the servers in these tests, and what is different in such a server."""

import os
import time
from pathlib import Path

from server import Handlers, Request
from server.journal import committer, mongodb, sqlite
from tests.integration import handlers as integration

handlers = Handlers()
handlers.include(integration.handlers)


@handlers.method(process=True)
def in_process(request: Request, path: str, gate: str) -> int:
    """Note in a file in which process it runs, until there is a file `gate`."""
    with Path(path).open("a") as file:
        file.write(f"{os.getpid()}\n")
    while not Path(gate).exists():
        time.sleep(0.01)
    return request.attempt


@handlers.method()
async def hog(request: Request, mebibytes: int) -> int:
    """Take so much memory, and give it back."""
    return len(bytearray(mebibytes * 2**20))


@handlers.method()
async def block(request: Request, path: str, gate: str) -> None:
    """Hold up the event loop, as no coroutine should, until there is a file `gate`."""
    Path(path).touch()
    while not Path(gate).exists():
        time.sleep(0.01)  # noqa: ASYNC251 - the very fault


# Statements that come behind the server's own, to see a test fail: `PRAGMA synchronous = OFF`.
sqlite._SETUP += tuple(filter(None, os.environ.get("FAULTS_SQLITE", "").split(";")))

if "FAULTS_QUICK" in os.environ:  # so that tests do not wait long for an outage to be noticed
    committer.STALLED_SECONDS = 0.5  # type: ignore[misc]
    mongodb.SELECTION_MS = 500  # type: ignore[misc]
