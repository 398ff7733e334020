"""What Grafana is given: dashboards that it can load and a person can read.

Grafana itself runs in no test: its packages are in no registry that we may count on.
"""

import re
from itertools import combinations
from typing import Any

import pytest

from tests.deploy.dashboards import FILES, FOLDER, Json, Query, dashboards, load, panels, queries
from tests.deploy.promql import metric_names
from tests.deploy.rules import FOLDER as PROMETHEUS_FOLDER
from tests.deploy.rules import read_yaml

COLUMNS = 24
TYPES = {"bargauge", "heatmap", "row", "stat", "state-timeline", "table", "timeseries"}
UNITS = {
    "Bps", "bytes", "dtdurations", "none", "ops", "percentunit", "reqps", "s", "short",
}  # fmt: skip
"""Those of Grafana's ids that we use: a misspelt one would be shown as a word behind the value."""
SELECTOR = re.compile(r"\b(?:queuesystem|process|python)_\w+(\{[^}]*\})?")

each_dashboard = pytest.mark.parametrize(
    "dashboard", dashboards().values(), ids=[path.stem for path in FILES]
)
each_panel = pytest.mark.parametrize(
    "panel",
    [
        pytest.param(panel, id=f"{name}-{panel['title']}")
        for name, dashboard in dashboards().items()
        for panel in panels(dashboard)
    ],
)
each_query = pytest.mark.parametrize("query", queries(), ids=lambda query: query.where)


def provisioned() -> Json:
    """Return the one datasource."""
    (source,) = read_yaml(FOLDER / "provisioning/datasources/prometheus.yml")["datasources"]
    return source


def found(value: Any, key: str) -> list[Any]:
    """Return what is under `key` anywhere in `value`."""
    if isinstance(value, dict):
        below = [one for child in value.values() for one in found(child, key)]
        return [*([value[key]] if key in value else []), *below]
    if isinstance(value, list):
        return [one for child in value for one in found(child, key)]
    return []


def overlap(one: Json, other: Json) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )


def test_a_key_that_is_there_twice_is_found() -> None:
    with pytest.raises(ValueError, match="twice"):
        load('{"panels": [{"id": 1, "id": 2}]}')


def test_there_is_a_dashboard_for_each_thing_to_look_at() -> None:
    assert set(dashboards()) == {"overview", "session", "journal", "bounds"}


def test_dashboards_have_addresses_and_titles_of_their_own() -> None:
    for key in ("uid", "title"):
        assert len({dashboard[key] for dashboard in dashboards().values()}) == len(FILES)


@each_dashboard
def test_a_dashboard_is_of_the_schema_of_the_grafana_in_compose(dashboard: Json) -> None:
    assert dashboard["schemaVersion"] == 41  # Grafana 11.6 and 12
    assert dashboard["description"]
    assert dashboard["tags"] == ["queuesystem"]  # what the links between them look for


@each_dashboard
def test_panels_are_numbered_and_called_differently(dashboard: Json) -> None:
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    titles = [panel["title"] for panel in dashboard["panels"]]
    assert sorted(set(titles)) == sorted(titles)


@each_dashboard
def test_panels_lie_on_the_grid_and_beside_each_other(dashboard: Json) -> None:
    places = [(panel["title"], panel["gridPos"]) for panel in dashboard["panels"]]
    for title, place in places:
        assert place["x"] >= 0, title
        assert place["y"] >= 0, title
        assert place["w"] > 0, title
        assert place["h"] > 0, title
        assert place["x"] + place["w"] <= COLUMNS, title
    for (title, place), (other_title, other) in combinations(places, 2):
        assert not overlap(place, other), f"{title} and {other_title}"


@each_dashboard
def test_data_comes_from_the_source_that_is_provisioned(dashboard: Json) -> None:
    source = provisioned()
    wanted = {"type": source["type"], "uid": source["uid"]}
    sources = found(dashboard, "datasource")
    assert sources
    assert all(source == wanted for source in sources)


@each_dashboard
def test_a_server_can_be_chosen(dashboard: Json) -> None:
    (variable,) = dashboard["templating"]["list"]
    assert variable["name"] == "instance"
    lookup = "label_values(queuesystem_build_info, instance)"
    assert variable["query"]["query"] == lookup


@each_panel
def test_a_panel_says_what_it_shows(panel: Json) -> None:
    assert panel["type"] in TYPES
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert found(panel["fieldConfig"]["defaults"], "unit")
    assert set(found(panel, "unit")) <= UNITS


@each_panel
def test_a_panel_has_data_of_its_own_and_its_overrides_mean_some_of_it(panel: Json) -> None:
    assert "datasource" in panel
    refs = [target["refId"] for target in panel["targets"]]
    assert refs
    assert len(set(refs)) == len(refs)
    for override in panel["fieldConfig"]["overrides"]:
        assert override["matcher"]["id"] == "byFrameRefID"
        assert override["matcher"]["options"] in refs


@each_panel
def test_lines_of_a_panel_can_be_told_apart(panel: Json) -> None:
    if panel["type"] in {"timeseries", "bargauge", "state-timeline"}:
        legends = [target.get("legendFormat", "") for target in panel["targets"]]
        assert all(legends)
        assert len(set(legends)) == len(legends)


@each_query
def test_a_query_is_about_the_chosen_server(query: Query) -> None:
    read = SELECTOR.finditer(query.expression)
    assert all('instance=~"$instance"' in (match[1] or "") for match in read)
    assert metric_names(query.expression)


def test_grafana_looks_where_compose_puts_the_dashboards() -> None:
    (provider,) = read_yaml(FOLDER / "provisioning/dashboards/queuesystem.yml")["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"] == "/etc/grafana/dashboards"


def test_grafana_knows_how_often_is_scraped() -> None:
    # Or $__rate_interval would be too short for a rate.
    configured = read_yaml(PROMETHEUS_FOLDER / "prometheus.yml")["global"]["scrape_interval"]
    assert provisioned()["jsonData"]["timeInterval"] == configured
