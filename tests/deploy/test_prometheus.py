"""A real Prometheus and a real server under load: every query has an answer.

What is asked for is what stands in deploy/, with durations that are shorter in the same measure
as the scrape interval is.
"""

import asyncio
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from scripts.ports import free_port
from tests.deploy.dashboards import Query, queries
from tests.deploy.prometheus import SCRAPE_SECONDS, Prometheus
from tests.deploy.promql import compared, quicker
from tests.deploy.rules import Alert, alerts, needs_prometheus
from tests.deploy.traffic import SETTINGS, crash, traffic
from tests.metrics import exposition, linted
from tests.server_process import ServerProcess

pytestmark = needs_prometheus

CRASHES = 3
QUICKER = 300
"""A window of 5 minutes holds four scrapes."""
HISTORY_SECONDS = 21 * 60 / QUICKER
"""How far back the queries look at most."""
RATE_INTERVAL = f"{4 * SCRAPE_SECONDS * 1000:.0f}ms"
"""What Grafana makes of `$__rate_interval` here."""


class Watched(NamedTuple):
    """A Prometheus that has seen everything between two moments (Unix times).

    `exposition` is what the server tells in the end.
    """

    prometheus: Prometheus
    start: float
    end: float
    exposition: str

    def has_data(self, expression: str, labels: frozenset[str] = frozenset()) -> None:
        """Assert that a graph of it shows something, and that each line has these labels."""
        series = self.prometheus.between(self.start, self.end, expression)
        assert any(one.finite for one in series), expression
        assert all(labels <= one.labels.keys() for one in series)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Whatever can happen has happened, and was scraped."""
    admin_port = free_port()
    folder = tmp_path_factory.mktemp("watched")
    server = ServerProcess(folder, admin_port=admin_port, **SETTINGS)
    prometheus = Prometheus(folder, f"127.0.0.1:{admin_port}")
    start = time.time()
    try:
        server.start()
        prometheus.start()
        asyncio.run(_let_it_all_happen(server, prometheus))
        yield Watched(prometheus, start, time.time(), exposition(server))
    finally:
        prometheus.close()
        server.close()


async def _let_it_all_happen(server: ServerProcess, prometheus: Prometheus) -> None:
    await asyncio.to_thread(prometheus.wait_scraped, 0)
    began = time.time()
    for _ in range(CRASHES):
        await crash(server)
        await asyncio.to_thread(prometheus.wait_scraped, time.time())
    await traffic(server)
    await asyncio.to_thread(prometheus.wait_scraped, max(time.time(), began + HISTORY_SECONDS))


def test_promtool_finds_nothing_to_say_about_its_metrics(watched: Watched) -> None:
    assert linted(watched.exposition) == ""


def test_the_server_is_scraped(watched: Watched) -> None:
    watched.has_data('up{job="queuesystem"} == 1')


@pytest.mark.parametrize("query", queries(), ids=lambda query: query.where)
def test_a_query_of_a_dashboard_has_data(watched: Watched, query: Query) -> None:
    expression = quicker(query.expression, QUICKER)
    expression = expression.replace("$instance", ".+").replace("$__rate_interval", RATE_INTERVAL)
    watched.has_data(expression, query.labels)


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)
def test_what_an_alert_compares_has_data(watched: Watched, alert: Alert) -> None:
    watched.has_data(compared(quicker(alert.expression, QUICKER)))


def test_a_dashboard_can_list_the_servers(watched: Watched) -> None:
    match = {"match[]": "queuesystem_build_info"}
    (target,) = watched.prometheus.get("targets", state="active")["activeTargets"]
    assert watched.prometheus.get("label/instance/values", **match) == [
        target["labels"]["instance"]
    ]


def test_prometheus_evaluates_every_alert_without_an_error(watched: Watched) -> None:
    groups = watched.prometheus.get("rules")["groups"]
    rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert rules.keys() == {alert.name for alert in alerts()}
    for rule in rules.values():
        assert rule["health"] == "ok", rule


def test_three_crashes_are_an_alert_and_what_else_happened_is_none(watched: Watched) -> None:
    firing = watched.prometheus.now('ALERTS{alertstate="firing"}')
    assert {one.labels["alertname"] for one in firing} == {"QueueSystemRestarts"}
