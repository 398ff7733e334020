"""Every contract test runs on every store: SQLite, and MongoDB by both of its drivers."""

import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from server.journal.log import Log
from server.journal.store import Store
from tests.contract.backends import (
    KINDS,
    MONGODB_KINDS,
    REAL_MONGODB,
    Backend,
    drop_database,
    fresh_database,
)
from tests.mongo import MongoDaemon


@pytest.fixture(scope="session")
def mongodb_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A MongoDB for all tests that do not harm it: TEST_MONGODB_URI, or a daemon of our own."""
    if REAL_MONGODB:
        yield REAL_MONGODB
        return
    daemon = MongoDaemon(tmp_path_factory.mktemp("mongodb"))
    daemon.start()
    yield daemon.url("")
    daemon.close()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def backend(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Backend]:
    if kind == "sqlite":
        backend = Backend(kind, f"sqlite:///{tmp_path / 'journal.db'}")
        yield backend
        await backend.close_all()
    else:
        backend = Backend(kind, fresh_database(request.getfixturevalue("mongodb_url")))
        yield backend
        await backend.close_all()
        drop_database(backend.url)


@pytest.fixture
async def store(backend: Backend) -> Store:
    return await backend.open()


@pytest.fixture
def log(store: Store) -> Log:
    return store.log


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[MongoDaemon]:
    """A MongoDB of the test's own, to be killed."""
    if REAL_MONGODB:
        pytest.skip("kills the database's process, which TEST_MONGODB_URI does not give us")
    daemon = MongoDaemon(tmp_path)
    daemon.start()
    yield daemon
    daemon.close()


@pytest.fixture(params=MONGODB_KINDS)
async def killable(request: pytest.FixtureRequest, daemon: MongoDaemon) -> AsyncIterator[Backend]:
    """A store whose database is `daemon`."""
    backend = Backend(request.param, daemon.url("killable"))
    yield backend
    await backend.close_all()
    gc.collect()  # what the driver leaves behind (see test_crash.py) is found here, not later
