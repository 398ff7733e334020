"""A Docker daemon of our own, all of it in one directory; it changes nothing else on the machine.

start -> docker(...) as often as you like -> stop, which ends every container
"""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from .report import CannotRun, Failed, attempt, run, wait_until
from .tools import Tools

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 60.0
OUTSIDE: Final = tuple(
    map(Path, ("/etc/docker/key.json", "/etc/docker", "/run/docker/plugins", "/run/docker"))
)
"""What a daemon writes outside of its directories, whatever it is told."""
CGROUPS: Final = Path("/sys/fs/cgroup")


class Daemon:
    """One daemon; it takes the best storage driver that works here (vfs always does)."""

    def __init__(self, directory: Path, tools: Tools) -> None:
        self.directory = directory
        self._tools = tools
        self._not_ours = set(_outside())
        self._process: subprocess.Popen[bytes] | None = None
        socket = f"unix://{directory}/docker.sock"
        self.environment = os.environ | {
            "DOCKER_HOST": socket,
            "DOCKER_CONFIG": str(directory / "client"),
            "DOCKER_BUILDKIT": "1",
        }
        configuration = directory / "daemon.json"
        configuration.write_text("{}")  # not that of the machine's own daemon
        self._command = [
            tools.dockerd,
            f"--host={socket}",
            f"--config-file={configuration}",
            f"--data-root={directory}/data",
            f"--exec-root={directory}/exec",
            f"--pidfile={directory}/docker.pid",
            # No rules, no forwarding: containers reach each other, and nothing outside.
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",
            "--ip-masq=false",
            "--log-level=warn",
        ]

    def start(self) -> None:
        """Start it, and wait until it answers. Raises CannotRun when it does not."""
        log = self.directory / "dockerd.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        try:
            wait_until(self._answers, START_SECONDS, "dockerd answers")
        except Failed as error:
            raise CannotRun(f"no Docker daemon can run here: {error}\n{log.read_text()}") from error

    def _answers(self) -> bool:
        assert self._process is not None  # noqa: S101 - for the type checker
        if self._process.poll() is not None:
            raise Failed("dockerd ended")
        return attempt([self._tools.docker, "version"], env=self.environment).returncode == 0

    def docker(self, *arguments: object, **options: Any) -> str:
        """Run `docker` and return what it printed. Raises Failed."""
        return run([self._tools.docker, *arguments], env=self.environment, **options)

    def try_docker(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run a `docker` that may fail."""
        return attempt([self._tools.docker, *arguments], env=self.environment)

    def compose(self, *arguments: object, cwd: Path) -> str:
        """Run Docker Compose and return what it printed. Raises Failed."""
        return run([*self._tools.compose, *arguments], env=self.environment, cwd=cwd)

    def inspect(self, container: str) -> dict[str, Any]:
        """Return all that Docker knows of a container."""
        return json.loads(self.docker("inspect", container))[0]

    def inside(self, container: str, *command: object, **options: Any) -> str:
        """Run a command in a container and return what it printed. Raises Failed."""
        interactive = ["--interactive"] if "input" in options else []
        return self.docker("exec", *interactive, container, *command, **options)

    def stop(self) -> None:
        """Remove all containers, end the daemon, and delete its directory."""
        if self._process is not None and self._process.poll() is None:
            with suppress(Failed):
                containers = self.docker("ps", "--all", "--quiet").split()
                if containers:
                    self.docker("rm", "--force", "--volumes", *containers)
                self.docker("network", "prune", "--force")
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._unmount()
        shutil.rmtree(self.directory)
        for path in _outside():
            if path not in self._not_ours:
                with suppress(OSError):  # another daemon's too
                    path.unlink() if path.is_file() else path.rmdir()

    def _unmount(self) -> None:
        """Let go of what a daemon that was killed has left mounted."""
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
        targets: Sequence[str] = [line.split()[1] for line in mounts]
        for target in reversed(targets):
            if Path(target).is_relative_to(self.directory):
                attempt(["umount", "--lazy", target])


def _outside() -> list[Path]:
    """Return what daemons have left outside of their directories, the innermost first."""
    groups = [*CGROUPS.glob("docker"), *CGROUPS.glob("*/docker")]
    inner = [path for group in groups for path in group.rglob("*") if path.is_dir()]
    return [*(path for path in OUTSIDE if path.exists()), *reversed(inner), *groups]
