"""A server on each kind of journal, to be restarted and replaced."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mongo import MongoDaemon
from tests.server_process import ServerProcess


@pytest.fixture(scope="session")
def mongodb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoDaemon]:
    """A database for all tests of this folder."""
    daemon = MongoDaemon(tmp_path_factory.mktemp("mongodb"))
    daemon.start()
    yield daemon
    daemon.close()


@pytest.fixture(params=["sqlite", "mongodb"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server on an empty journal, not started yet."""
    journal = None
    if request.param == "mongodb":
        journal = request.getfixturevalue("mongodb").url(f"restarts-{secrets.token_hex(4)}")
    server = ServerProcess(tmp_path, journal, handlers="tests.integration.handlers:handlers")
    yield server
    server.close()
