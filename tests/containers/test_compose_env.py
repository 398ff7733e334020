"""scripts/compose_env: makes what docker-compose.yml asks for, and touches nothing else."""

import stat
import subprocess
from pathlib import Path

import pytest
from dotenv import dotenv_values

from server.settings import load, read_dotenv
from tests.containers import compose


@pytest.fixture
def _compose() -> None:
    if compose.program() is None:
        pytest.skip("no Docker Compose here")


def make(file: Path) -> None:
    subprocess.run(
        [compose.ROOT / "scripts/compose_env", file], check=True, capture_output=True, umask=0
    )


@pytest.fixture
def made(tmp_path: Path) -> Path:
    make(tmp_path / ".env")
    return tmp_path / ".env"


def test_it_makes_every_secret_that_compose_asks_for(made: Path) -> None:
    variables = compose.VARIABLE.finditer(compose.FILE.read_text())
    asked = {one["name"] for one in variables if one["rest"].startswith(":?")}
    assert dotenv_values(made).keys() == asked


def test_secrets_are_long_and_all_different(made: Path) -> None:
    values = [value or "" for value in dotenv_values(made).values()]
    assert min(map(len, values)) >= 64
    assert len(set(values)) == len(values)


def test_only_its_owner_can_read_them(made: Path) -> None:
    assert stat.S_IMODE(made.stat().st_mode) == 0o600


def test_what_is_there_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    before = "# mine\nSTACK_JWT_SECRET=my-own\nQUEUESYSTEM_WINDOW=8"  # without an end of line
    file.write_text(before)
    make(file)
    assert file.read_text().startswith(before + "\nSTACK_")
    assert dotenv_values(file)["STACK_JWT_SECRET"] == "my-own"


def test_a_second_run_changes_nothing(made: Path) -> None:
    before = made.read_bytes()
    make(made)
    assert made.read_bytes() == before


def test_a_server_started_beside_the_file_takes_no_offence(made: Path) -> None:
    load({}, {}, read_dotenv(made))


@pytest.mark.usefixtures("_compose")
def test_compose_takes_the_file_with_them(made: Path) -> None:
    checked = compose.config(made)
    assert (checked.returncode, checked.stdout) == (0, ""), checked.stderr


@pytest.mark.usefixtures("_compose")
def test_compose_refuses_without_them_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / ".env").touch()
    refused = compose.config(tmp_path / ".env")
    assert refused.returncode != 0
    assert "run scripts/compose_env first" in refused.stderr
