"""The server in a container: what is checked of it, whoever started it."""

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final

from .daemon import Daemon
from .load import Load
from .report import expect, say, verified, wait_until

UID: Final = 10001
READY_SECONDS: Final = 60.0
HEALTHY_SECONDS: Final = 60.0
STOP_SECONDS: Final = 45
"""What the server gets to stop: more than its drain_timeout of 30 s."""
KILLED: Final = 128 + 9


class Container:
    """The container `name`, whose server answers on `port` of this machine."""

    def __init__(self, daemon: Daemon, name: str, port: int, secret: str) -> None:
        self.name = name
        self._daemon = daemon
        self._port = port
        self._secret = secret

    def check_sandbox(self) -> None:
        """Check what the server could do if it was somebody else's."""
        daemon, name = self._daemon, self.name
        ids = daemon.inside(name, "id", "-u").strip(), daemon.inside(name, "id", "-g").strip()
        expect(ids == (str(UID), str(UID)), f"{name} runs as user and group {UID}", ids)
        for path, writable in (("/app/x", False), ("/opt/queuesystem/x", False), ("/data/x", True)):
            touched = daemon.try_docker("exec", name, "touch", path)
            what = "can" if writable else "cannot"
            expect((touched.returncode == 0) is writable, f"{name} {what} write {path}")
        status = daemon.inside(name, "cat", "/proc/1/status")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        expect(
            all(int(fields[set_], 16) == 0 for set_ in ("CapPrm", "CapEff", "CapBnd")),
            f"{name} has no capabilities",
        )
        expect(fields["NoNewPrivs"] == "1", f"{name} cannot gain privileges")

    def check_login(self) -> None:
        """Add a user as an operator does, and log in as that user."""
        self._daemon.inside(
            self.name, "queuesystem", "user", "add", "alice", "--password-stdin", input=self._secret
        )
        login = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        url = f"http://127.0.0.1:{self._port}/token"
        login.add_password(None, url, "alice", self._secret)
        opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(login))
        with opener.open(urllib.request.Request(url, method="POST"), timeout=10) as answer:
            token = json.load(answer).get("access_token")
        expect(bool(token), f"a user added in {self.name} gets a token")

    def check_methods(self, port: int) -> None:
        """Call a method that runs in a process of its own; `port` is the server's in there."""
        said = self._daemon.inside(
            self.name,
            *("queuesystem", "send", "sha256", "--param", "text=abc"),
            *("--url", f"ws://127.0.0.1:{port}/ws"),
        )
        expect("ba7816bf8f01cfea" in said, f"{self.name} runs methods in processes", said)

    def wait_ready(self) -> None:
        """Wait until /readyz says yes."""
        wait_until(self._ready, READY_SECONDS, f"{self.name} is ready")

    def wait_healthy(self) -> None:
        """Wait until Docker finds it healthy, by the image's health check."""
        wait_until(
            lambda: self._state()["Health"]["Status"] == "healthy",
            HEALTHY_SECONDS,
            f"{self.name} is healthy",
        )
        verified(f"{self.name} is healthy")

    def check_crash_and_restart(self, directory: Path) -> None:
        """Kill it under load, start it again, stop it, start it again; the load must not notice."""
        say("putting load on it")
        load = Load(self._port, self._secret, directory)
        try:
            load.wait_until_under_way()
            self._daemon.docker("kill", self.name)
            wait_until(lambda: not self._state()["Running"], 10, f"{self.name} is dead")
            code = self._state()["ExitCode"]
            expect(code == KILLED, f"SIGKILL under load ended {self.name}", code)
            self._start()
            load.wait_until_all_are_back()
            self._daemon.docker("stop", f"--time={STOP_SECONDS}", self.name)
            code = self._state()["ExitCode"]
            expect(code == 0, f"docker stop under load: {self.name} exits 0 after its drain", code)
            self._start()
            expect(load.running(), "all that was under load")
            load.finish()
        finally:
            load.close()

    def _start(self) -> None:
        self._daemon.docker("start", self.name)
        self.wait_ready()
        verified(f"{self.name} is started again, and ready")

    def _state(self) -> dict[str, Any]:
        return self._daemon.inspect(self.name)["State"]

    def _ready(self) -> bool:
        url = f"http://127.0.0.1:{self._port}/readyz"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return True
        except (OSError, urllib.error.URLError):
            return False
