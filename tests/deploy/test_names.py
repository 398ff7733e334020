"""Every metric that a dashboard or an alert names is one that a server has."""

import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.dashboards import queries
from tests.deploy.promql import metric_names
from tests.deploy.rules import alerts
from tests.server_process import ServerProcess

PROMETHEUS_OWN = {"up", "ALERTS"}
"""What Prometheus says of its targets and rules."""
EXPRESSIONS = {
    **{query.where: query.expression for query in queries()},
    **{alert.name: alert.expression for alert in alerts()},
}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of all samples of a server that has just begun."""
    server = ServerProcess(tmp_path_factory.mktemp("server"))
    server.start()
    try:
        with urllib.request.urlopen(f"{server.admin}/metrics", timeout=10) as response:  # noqa: S310
            text = response.read().decode()
    finally:
        server.close()
    return {one.name for family in text_string_to_metric_families(text) for one in family.samples}


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_a_server_has_every_metric_that_is_named(where: str, samples: set[str]) -> None:
    assert metric_names(EXPRESSIONS[where]) <= samples | PROMETHEUS_OWN
