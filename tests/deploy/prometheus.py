"""A real Prometheus that scrapes one server, with the configuration of deploy/."""

import json
import math
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from scripts.ports import free_port
from tests.deploy.rules import FOLDER, PROMETHEUS
from tests.killable import Killable

SCRAPE_SECONDS = 0.25
CONFIGURED_SECONDS = 15
START_SECONDS = 30


class Series(NamedTuple):
    """What one line of a graph shows."""

    labels: dict[str, str]
    values: list[float]

    @property
    def finite(self) -> bool:
        """Tell whether it has a value that can be drawn."""
        return any(math.isfinite(value) for value in self.values)


class Prometheus(Killable):
    """Prometheus below `directory`; of our files only the target and the intervals are changed."""

    def __init__(self, directory: Path, target: str) -> None:
        self.directory = directory
        self.url = f"http://127.0.0.1:{free_port()}"
        self.output = directory / "prometheus.log"
        self._configure(target)

    def _configure(self, target: str) -> None:
        text = (FOLDER / "prometheus.yml").read_text(encoding="utf-8")
        for ours, theirs in (
            ("server:9465", target),
            (f": {CONFIGURED_SECONDS}s", f": {SCRAPE_SECONDS * 1000:.0f}ms"),
        ):
            assert ours in text
            text = text.replace(ours, theirs)
        (self.directory / "prometheus.yml").write_text(text, encoding="utf-8")
        shutil.copy(FOLDER / "alerts.yml", self.directory)

    def start(self) -> None:
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [
                    PROMETHEUS,
                    f"--config.file={self.directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self.directory / 'data'}",
                    f"--web.listen-address={self.url.removeprefix('http://')}",
                ],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise AssertionError(f"Prometheus did not start:\n{self.output.read_text()}")
            time.sleep(0.02)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5):  # noqa: S310
                return True
        except OSError:
            return False

    def get(self, path: str, **parameters: str) -> Any:
        """Return what the HTTP API has at `path`. Raises HTTPError for what it cannot answer."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310
            answer = json.load(response)
        assert answer["status"] == "success"
        assert not answer.get("warnings")
        return answer["data"]

    def now(self, expression: str) -> list[Series]:
        """Return what an expression without history gives at this moment."""
        result = self.get("query", query=expression)["result"]
        return [Series(one["metric"], [float(one["value"][1])]) for one in result]

    def between(self, start: float, end: float, expression: str) -> list[Series]:
        """Return what a graph from `start` to `end` (Unix times) shows of an expression."""
        moments = {"start": f"{start}", "end": f"{end}", "step": f"{SCRAPE_SECONDS}"}
        result = self.get("query_range", query=expression, **moments)["result"]
        return [
            Series(one["metric"], [float(value) for _, value in one["values"]]) for one in result
        ]

    def wait_scraped(self, after: float) -> None:
        """Wait until there is a scrape from later than that Unix time."""
        deadline = time.monotonic() + START_SECONDS
        while not any(s.values[0] > after for s in self.now("timestamp(queuesystem_ready)")):
            assert time.monotonic() < deadline, self.get("targets")
            time.sleep(SCRAPE_SECONDS / 4)
