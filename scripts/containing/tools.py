"""The programs that the checks need, from Debian's packages: Docker, Compose, debootstrap."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .report import CannotRun, attempt, run, say

PACKAGES: Final = {
    "dockerd": "docker.io",
    "debootstrap": "debootstrap",
    "docker-compose": "docker-compose",
}
DEBIANS_CLI: Final = Path("/usr/bin/docker")
"""Taken before others in PATH: as old as Debian's daemon, and it can use BuildKit."""


@dataclass(frozen=True)
class Tools:
    """Where the programs are."""

    dockerd: str
    debootstrap: str
    docker: str
    compose: tuple[str, ...]


def find_tools(compose: str | None) -> Tools:
    """Find the programs, install what is missing; `compose` is the Docker Compose to use.

    Raises CannotRun when this is not root, or something cannot be installed.
    """
    if os.geteuid() != 0:
        raise CannotRun("only root can start a Docker daemon and make a base image")
    plugin = attempt(["docker", "compose", "version"]) if shutil.which("docker") else None
    has_plugin = plugin is not None and plugin.returncode == 0
    needed = [
        name
        for name in PACKAGES
        if shutil.which(name) is None and (name != "docker-compose" or not (compose or has_plugin))
    ]
    if needed:
        _install([PACKAGES[name] for name in needed])
    if compose is None and has_plugin:
        command = ("docker", "compose")
    else:
        command = (compose or "docker-compose",)
    return Tools(
        dockerd=_path("dockerd"),
        debootstrap=_path("debootstrap"),
        docker=str(DEBIANS_CLI) if DEBIANS_CLI.exists() else _path("docker"),
        compose=command,
    )


def _install(packages: list[str]) -> None:
    if shutil.which("apt-get") is None:
        raise CannotRun(f"there is no apt-get to install {', '.join(packages)}")
    say(f"installing {', '.join(packages)}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "--yes", "-qq", "--no-install-recommends", *packages]
    if attempt(install, env=environment).returncode != 0:
        run(["apt-get", "update", "-qq"])
        ended = attempt(install, env=environment)
        if ended.returncode != 0:
            raise CannotRun(f"{', '.join(packages)} cannot be installed:\n{ended.stderr}")


def _path(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise CannotRun(f"there is no {name}")
    return found
