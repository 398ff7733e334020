"""The table of events says all that is logged, and nothing else."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

from server.log_events import EVENTS, render

SERVER = Path(__file__).parents[2] / "server"
LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}


def logged() -> dict[str, set[str]]:
    """Return the levels of each event, as the source has them."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in SERVER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            level = node.func.attr
            match node.func.value, level, node.args:
                case ast.Name("_log"), _, [event, *_] if level in LEVELS:
                    assert isinstance(event, ast.Constant), "an event is a name, not made of data"
                    found[str(event.value)].add(level.replace("exception", "error"))
                case _, "line", [given, ast.Constant(event), _]:  # of the log itself
                    known = isinstance(given, ast.Constant)
                    found[str(event)].add(str(given.value) if known else "as the lines")
                case _:
                    pass
    return found


LOGGED = logged()


def test_the_table_has_the_events_that_are_logged_and_no_others() -> None:
    assert set(EVENTS) == set(LOGGED)


@pytest.mark.parametrize("event", sorted(LOGGED))
def test_the_table_has_the_levels_of_each_event(event: str) -> None:
    assert set(EVENTS[event].levels.split(", ")) == LOGGED[event]


def test_the_markdown_has_a_row_for_each_event() -> None:
    rows = render().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == list(EVENTS)
