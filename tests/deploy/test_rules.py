"""Prometheus takes our configuration, and each alert fires when it must and only then.

When that is, is said in deploy/prometheus/tests, which promtool runs.
"""

import re
import subprocess
from pathlib import Path

import pytest

from tests.deploy.rules import FOLDER, PROMTOOL, Alert, alerts, needs_prometheus, read_yaml
from tests.server_process import ROOT

TESTS = sorted((FOLDER / "tests").glob("*.yml"))
ANCHOR = re.compile(r'<a id="(alert-[a-z]+)">')


def promtool(*arguments: str | Path) -> None:
    run = subprocess.run(
        [PROMTOOL, *arguments], capture_output=True, text=True, timeout=30, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


@needs_prometheus
def test_prometheus_takes_its_configuration_and_the_rules_it_names() -> None:
    promtool("check", "config", "--lint-fatal", FOLDER / "prometheus.yml")


@needs_prometheus
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_must_and_only_then(path: Path) -> None:
    promtool("test", "rules", path)


@pytest.mark.parametrize("fires", [True, False], ids=["fires", "does not fire"])
@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)
def test_each_alert_has_a_case_in_which_it(alert: Alert, fires: bool) -> None:
    cases = [
        case
        for path in TESTS
        for test in read_yaml(path)["tests"]
        for case in test["alert_rule_test"]
    ]
    ours = [bool(case["exp_alerts"]) for case in cases if case["alertname"] == alert.name]
    assert fires in ours


def test_alerts_have_names_of_their_own() -> None:
    names = [alert.name for alert in alerts()]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)
def test_an_alert_says_how_urgent_it_is_what_it_means_and_where_more_is_written(
    alert: Alert,
) -> None:
    assert alert.severity in {"critical", "warning"}
    assert set(alert.annotations) == {"summary", "description", "runbook"}
    assert "First:" in alert.annotations["description"]
    assert alert.annotations["runbook"] == f"README.md#alert-{alert.name.lower()}"


def test_the_runbook_has_a_place_for_each_alert_and_for_no_other() -> None:
    anchors = ANCHOR.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert sorted(anchors) == sorted(f"alert-{alert.name.lower()}" for alert in alerts())
