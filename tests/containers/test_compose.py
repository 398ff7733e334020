"""docker-compose.yml: hardened, bounded, pinned, closed to the outside, without passwords."""

import re
import tomllib
from typing import Any

import pytest

from server.app import FLUSH_SECONDS
from server.settings import Settings, load
from tests.containers import compose

ADMIN_PORT = "9465"
NAMES_OF_SECRETS = re.compile(r"PASSWORD|SECRET|KEY|JOURNAL")

each = pytest.mark.parametrize("name", compose.services())
each_lasting = pytest.mark.parametrize("name", compose.lasting())


@each
def test_a_service_can_neither_write_its_image_nor_gain_rights(name: str) -> None:
    service = compose.services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "cap_add" not in service


@each
def test_what_a_service_takes_is_bounded(name: str) -> None:
    service = compose.services()[name]
    assert service["mem_limit"]
    assert service["cpus"]
    assert service["pids_limit"]
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}
    for mount in service.get("tmpfs", []):
        assert "size=" in mount


@each
def test_images_are_pinned(name: str) -> None:
    _, _, tag = compose.services()[name]["image"].rpartition(":")
    assert re.fullmatch(r"v?\d+\.\d+\.\d+", tag)


def test_our_image_has_the_version_of_the_project() -> None:
    project = tomllib.loads((compose.ROOT / "pyproject.toml").read_text())["project"]
    assert compose.services()["server"]["image"] == f"queuesystem:{project['version']}"


@each_lasting
def test_what_stays_comes_back_and_tells_how_it_is(name: str) -> None:
    service = compose.services()[name]
    assert service["restart"] == "unless-stopped"
    ours = "build" in service and "\nHEALTHCHECK" in (compose.ROOT / "Dockerfile").read_text()
    assert ours or service["healthcheck"]["test"][0] == "CMD"


@each
def test_a_service_waits_for_what_it_needs(name: str) -> None:
    needs: dict[str, dict[str, str]] = compose.services()[name].get("depends_on", {})
    for needed, how in needs.items():
        stays = needed in compose.lasting()
        wanted = "service_healthy" if stays else "service_completed_successfully"
        assert how["condition"] == wanted


@each
def test_ports_are_published_on_this_machine_alone(name: str) -> None:
    for port in compose.services()[name].get("ports", []):
        usual = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", port)
        assert usual.startswith("127.0.0.1:")
        assert not usual.endswith(f":{ADMIN_PORT}")


def test_the_database_reaches_nobody_and_is_reached_by_the_server_alone() -> None:
    attached = {
        name for name, one in compose.services().items() if "database" in one.get("networks", [])
    }
    assert attached == {"server", "mongodb"}
    assert compose.services()["mongodb"]["networks"] == ["database"]


@each
def test_no_secret_is_written_down_or_has_a_default(name: str) -> None:
    environment: dict[str, str] = compose.services()[name].get("environment", {})
    for key, value in environment.items():
        if NAMES_OF_SECRETS.search(key):
            variables = list(compose.VARIABLE.finditer(value))
            assert variables, f"{key} is written down"
            for variable in variables:
                assert variable["rest"] == ":?run scripts/compose_env first"


def test_no_password_is_an_argument() -> None:
    arguments = [
        str(one.get(key, ""))
        for one in compose.services().values()
        for key in ("command", "entrypoint")
    ]
    assert not [line for line in arguments if "STACK_" in line]


def environment_of_the_server() -> dict[str, str]:
    written: dict[str, Any] = compose.services()["server"]["environment"]
    return {name: compose.VARIABLE.sub("x" * 64, value) for name, value in written.items()}


def test_the_server_takes_its_settings() -> None:
    settings = load({}, environment_of_the_server(), {})
    assert settings.journal.startswith("mongodb://")


def test_docker_waits_longer_than_the_server_drains() -> None:
    seconds = int(compose.services()["server"]["stop_grace_period"].removesuffix("s"))
    settings: Settings = load({}, environment_of_the_server(), {})
    assert seconds > settings.drain_timeout + FLUSH_SECONDS
