"""What deploy/prometheus says, as the tests read it."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.server_process import ROOT

FOLDER = ROOT / "deploy/prometheus"
PROMETHEUS = shutil.which("prometheus") or ""
PROMTOOL = shutil.which("promtool") or ""

needs_prometheus = pytest.mark.skipif(
    not (PROMETHEUS and PROMTOOL), reason="no Prometheus here (Debian: apt-get install prometheus)"
)


class Alert(NamedTuple):
    """One alert of alerts.yml."""

    name: str
    expression: str
    severity: str
    annotations: dict[str, str]


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def alerts() -> list[Alert]:
    """Return the alerts of the rule files that prometheus.yml names; other rules there are none."""
    files = read_yaml(FOLDER / "prometheus.yml")["rule_files"]
    rules = [r for f in files for g in read_yaml(FOLDER / f)["groups"] for r in g["rules"]]
    return [Alert(r["alert"], r["expr"], r["labels"]["severity"], r["annotations"]) for r in rules]
