"""docker-compose.yml as the tests read it, and the programs that can."""

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?P<rest>[^}]*)\}")


@cache
def services() -> dict[str, dict[str, Any]]:
    """Return the services of the file, anchors resolved, variables as they are written."""
    return yaml.safe_load(FILE.read_text())["services"]


def lasting() -> dict[str, dict[str, Any]]:
    """Return the services that are there to stay."""
    return {name: one for name, one in services().items() if one["restart"] != "no"}


@cache
def program() -> tuple[str, ...] | None:
    """Return the command of Docker Compose, None when there is none."""
    for command in (("docker", "compose"), ("docker-compose",)):
        if shutil.which(command[0]) is None:
            continue
        if subprocess.run([*command, "version"], capture_output=True, check=False).returncode == 0:
            return command
    return None


def config(env_file: Path) -> subprocess.CompletedProcess[str]:
    """Let Docker Compose read and check the file with the variables of `env_file` alone."""
    command = program()
    assert command is not None
    clean = {name: value for name, value in os.environ.items() if not name.startswith("STACK_")}
    return subprocess.run(
        [*command, "--file", FILE, "--env-file", env_file, "config", "--quiet"],
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )
