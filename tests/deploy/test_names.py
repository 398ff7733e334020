"""Every metric and label value that a dashboard or an alert names is one that a server has."""

import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.dashboards import queries
from tests.deploy.promql import matched, metric_names
from tests.deploy.rules import alerts
from tests.server_process import ServerProcess

PROMETHEUS_OWN = {"up", "ALERTS"}
"""What Prometheus says of its targets and rules."""
PROMETHEUS_LABELS = {"instance", "job"}
"""What Prometheus knows of a server."""
EXPRESSIONS = {
    **{query.where: query.expression for query in queries()},
    **{alert.name: alert.expression for alert in alerts()},
}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[tuple[str, str]]]:
    """What a server that has just begun shows: names, and the labels and values of each."""
    server = ServerProcess(tmp_path_factory.mktemp("server"))
    server.start()
    try:
        with urllib.request.urlopen(f"{server.admin}/metrics", timeout=10) as response:  # noqa: S310
            text = response.read().decode()
    finally:
        server.close()
    samples: dict[str, set[tuple[str, str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, set()).update(sample.labels.items())
    return samples


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_a_server_has_every_metric_that_is_named(
    where: str, samples: dict[str, set[tuple[str, str]]]
) -> None:
    assert metric_names(EXPRESSIONS[where]) <= samples.keys() | PROMETHEUS_OWN


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_a_server_has_every_label_value_that_is_looked_for(
    where: str, samples: dict[str, set[tuple[str, str]]]
) -> None:
    for metric, label, value in matched(EXPRESSIONS[where]):
        if metric not in PROMETHEUS_OWN and label not in PROMETHEUS_LABELS:
            assert (label, value) in samples[metric]
