"""The machine that faults come from; longer variants of these tests, by options."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.server import FaultyServer
from tests.faults.shim import Machine


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--power-losses", type=int, default=2, help="losses of power per test")
    parser.addoption("--outage-seconds", type=float, default=0, help="how long a journal is away")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """What a server of the test can be made to meet."""
    return Machine(tmp_path)


@pytest.fixture
def server(machine: Machine, tmp_path: Path) -> Iterator[FaultyServer]:
    """A server on that machine, unless a module has its own."""
    server = FaultyServer(tmp_path, variables=machine.environment)
    server.start()
    yield server
    server.close()
