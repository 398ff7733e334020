"""Real servers as subprocesses: one for all tests of a module, or one of the test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server_process import ServerProcess

SMALL = {
    "handlers": "tests.integration.handlers:handlers",
    "window": 4,
    "max_message_bytes": 4096,
    "max_result_bytes": 65536,
    "max_unacked": 8,
    "auth_timeout": 2,
}
"""Settings with limits that a test can reach."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with small limits, shared by the tests of a module."""
    server = ServerProcess(tmp_path_factory.mktemp("server"), **SMALL)
    server.start()
    yield server
    server.close()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server of the test's own, not started yet; its `settings` may be changed before."""
    server = ServerProcess(tmp_path, handlers="tests.integration.handlers:handlers")
    yield server
    server.close()
