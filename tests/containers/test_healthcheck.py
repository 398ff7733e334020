"""The health check of the image, as Docker runs it: by its exit code."""

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from scripts.ports import free_port
from tests.server_process import ServerProcess

HEALTHCHECK = Path(__file__).parents[2] / "deploy/healthcheck.py"


def check(port: int, host: str = "0.0.0.0") -> subprocess.CompletedProcess[str]:  # noqa: S104
    """Run it as the HEALTHCHECK of a container whose server has this address."""
    return subprocess.run(
        [sys.executable, "-I", HEALTHCHECK],
        env=os.environ | {"QUEUESYSTEM_HOST": host, "QUEUESYSTEM_PORT": str(port)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.close()


@pytest.fixture
def broken_port() -> Iterator[int]:
    """The port of a server that is there, but not well."""

    class Broken(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Broken) as broken:
        thread = threading.Thread(target=broken.serve_forever, args=(0.02,))
        thread.start()
        yield broken.server_port
        broken.shutdown()
        thread.join()


def test_a_living_server_is_healthy(server: ServerProcess) -> None:
    assert check(server.port).returncode == 0


def test_a_server_with_one_address_is_asked_there(server: ServerProcess) -> None:
    assert check(server.port, "127.0.0.1").returncode == 0
    assert check(server.port, "127.0.0.2").returncode == 1


def test_no_server_is_unhealthy_and_the_reason_is_told() -> None:
    checked = check(free_port())
    assert checked.returncode == 1
    assert "/livez does not answer" in checked.stderr


def test_a_server_that_answers_with_an_error_is_unhealthy(broken_port: int) -> None:
    checked = check(broken_port)
    assert checked.returncode == 1
    assert "/livez answers 503" in checked.stderr
