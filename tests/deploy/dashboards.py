"""The dashboards in deploy/grafana, and every query in them."""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.server_process import ROOT

FOLDER = ROOT / "deploy/grafana"
FILES = sorted((FOLDER / "dashboards").glob("*.json"))
Json = dict[str, Any]

_LABEL = re.compile(r"\{\{\s*(\w+)\s*\}\}")


class Query(NamedTuple):
    """One PromQL expression; `labels` are those that its legend shows."""

    where: str
    expression: str
    labels: frozenset[str]


def load(text: str) -> Json:
    """Read a dashboard. Raises ValueError for a key that is there twice."""
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> Json:
    if len(dict(pairs)) < len(pairs):
        raise ValueError(f"a key twice: {[key for key, _ in pairs]}")
    return dict(pairs)


def dashboards() -> dict[str, Json]:
    """Return them by the names of their files."""
    return {path.stem: load(path.read_text(encoding="utf-8")) for path in FILES}


def panels(dashboard: Json) -> list[Json]:
    """Return what shows data: all but the headings of rows."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries() -> list[Query]:
    """Return every expression of panels and annotations."""
    return [
        query for name, dashboard in dashboards().items() for query in _queries(name, dashboard)
    ]


def _queries(name: str, dashboard: Json) -> Iterator[Query]:
    for annotation in dashboard["annotations"]["list"]:
        labels = frozenset(_LABEL.findall(annotation["titleFormat"]))
        yield Query(f"{name}: {annotation['name']}", annotation["target"]["expr"], labels)
    for panel in panels(dashboard):
        for target in panel["targets"]:
            where = f"{name}: {panel['id']} {panel['title']} {target['refId']}"
            labels = frozenset(_LABEL.findall(target.get("legendFormat", "")))
            yield Query(where, target["expr"], labels)
