"""Reads the metrics of a server as a scraper does."""

import shutil
import subprocess
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from tests.server_process import ServerProcess

Labels = dict[str, str]
PROMTOOL = shutil.which("promtool")
"""Prometheus' own judge of names, units and help (Debian: apt-get install prometheus)."""


def exposition(server: ServerProcess) -> str:
    """Return /metrics as text."""
    with urllib.request.urlopen(f"{server.admin}/metrics", timeout=30) as response:  # noqa: S310
        return str(response.read().decode())


def linted(text: str) -> str:
    """Return what promtool has to say about this exposition; nothing when it is as it should be."""
    checked = subprocess.run(
        [str(PROMTOOL), "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    return checked.stdout + checked.stderr


class Scrape:
    """All samples at one moment, by name and labels."""

    def __init__(self, server: ServerProcess) -> None:
        self.text = exposition(server)
        self._values = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """Return the value of `queuesystem_` and `name`."""
        return self._values[f"queuesystem_{name}", tuple(sorted(labels.items()))]
