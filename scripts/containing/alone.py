"""The image by itself, as `docker run` has it: journal in SQLite, in a volume."""

import secrets
from pathlib import Path

from scripts.ports import free_port

from .container import UID, Container
from .daemon import Daemon
from .report import expect, say

NAME = "queuesystem-alone"


def check_alone(daemon: Daemon, image: str) -> None:
    """Run it with everything taken away that it can do without; kill it, stop it."""
    say("the image alone, with SQLite")
    port, secret = free_port(), secrets.token_hex(32)
    environment = _environment(daemon.directory, port, secret)
    daemon.docker(
        "run",
        "--detach",
        f"--name={NAME}",
        f"--user={UID}:{UID}",
        "--read-only",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--pids-limit=256",
        "--memory=512m",
        "--tmpfs=/tmp:size=64m",
        f"--volume={NAME}:/data",
        "--network=host",
        "--health-interval=1s",
        f"--env-file={environment}",
        image,
    )
    container = Container(daemon, NAME, port, secret)
    container.wait_ready()
    container.wait_healthy()
    first = daemon.inside(NAME, "cat", "/proc/1/cmdline").split("\0")
    expect("/opt/queuesystem/bin/queuesystem" in first, "the server is process 1", first)
    container.check_sandbox()
    container.check_login()
    container.check_methods(port)
    container.check_crash_and_restart(daemon.directory)
    daemon.docker("stop", "--time=45", NAME)
    daemon.docker("rm", NAME)


def _environment(directory: Path, port: int, secret: str) -> Path:
    """Write the file of the container's variables: it listens on this machine alone."""
    path = directory / "alone.env"
    path.touch(mode=0o600)
    path.write_text(
        f"QUEUESYSTEM_HOST=127.0.0.1\nQUEUESYSTEM_PORT={port}\n"
        f"QUEUESYSTEM_ADMIN_HOST=127.0.0.1\nQUEUESYSTEM_ADMIN_PORT={free_port()}\n"
        f"QUEUESYSTEM_JWT_SECRET={secret}\n"
    )
    return path
