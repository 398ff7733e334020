"""One real server that all of these tests attack, and one of a test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server_process import ServerProcess

HANDLERS = "tests.integration.handlers:handlers"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("security")
    group.addoption("--bad-clients", type=int, help="how many flood the log (default 2000)")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that every test of this folder shares: what one does must not harm the next."""
    server = ServerProcess(
        tmp_path_factory.mktemp("security"),
        handlers=HANDLERS,
        auth_timeout=3,
        origins="https://app.example",
    )
    server.start()
    yield server
    server.close()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server of the test's own, not started yet; its `settings` may be changed before."""
    server = ServerProcess(tmp_path, handlers=HANDLERS)
    yield server
    server.close()
