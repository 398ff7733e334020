"""Logs: one way for all lines, nothing forged, nothing of others' debugging."""

import json
import logging
import sys
import threading
from collections.abc import Iterator

import pytest
import structlog

from server import logs


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = sys.unraisablehook, threading.excepthook
    root.handlers = []  # pytest's own are not to be closed
    yield
    root.handlers, root.level = handlers, level
    logging.getLogger("websockets").setLevel(logging.NOTSET)
    logging.captureWarnings(capture=False)
    sys.unraisablehook, threading.excepthook = hooks
    structlog.reset_defaults()


def lines(capfd: pytest.CaptureFixture[str]) -> list[str]:
    captured = capfd.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_json_lines_have_event_level_and_utc_time(capfd: pytest.CaptureFixture[str]):
    logs.configure("json", "info")
    structlog.get_logger().info("accepted", n=3)
    [line] = lines(capfd)
    record = json.loads(line)
    assert record.pop("timestamp").endswith("Z")
    assert record == {"event": "accepted", "level": "info", "n": 3}


def test_lines_of_libraries_take_the_same_way(capfd: pytest.CaptureFixture[str]):
    logs.configure("json", "info")
    logging.getLogger("asyncio").warning("slow %s", "callback")
    [line] = lines(capfd)
    record = json.loads(line)
    assert record.pop("timestamp").endswith("Z")
    assert record == {"event": "slow callback", "level": "warning", "logger": "asyncio"}


def test_auto_is_json_when_nobody_looks(capfd: pytest.CaptureFixture[str]):
    logs.configure("auto", "info")
    structlog.get_logger().info("hello")
    assert json.loads(lines(capfd)[0])["event"] == "hello"


def test_lines_below_the_level_are_dropped(capfd: pytest.CaptureFixture[str]):
    logs.configure("json", "warning")
    structlog.get_logger().info("ours")
    logging.getLogger("library").info("theirs")
    assert lines(capfd) == []


def test_debugging_us_does_not_debug_libraries(capfd: pytest.CaptureFixture[str]):
    """`websockets` and `pymongo` write tokens and params at DEBUG."""
    logs.configure("json", "debug")
    structlog.get_logger().debug("ours")
    logging.getLogger("websockets.server").debug("< TEXT token")
    logging.getLogger("pymongo.command").debug("params")
    assert [json.loads(line)["event"] for line in lines(capfd)] == ["ours"]


@pytest.mark.parametrize("forged", ["a\nb", "a\rb", "a\x1b[2Kb", "a\u2028b", "a\u202eb", "a\x9bb"])
@pytest.mark.parametrize("form", ["console", "json"])
def test_data_cannot_forge_a_line_or_steer_the_terminal(
    capfd: pytest.CaptureFixture[str], forged: str, form: logs.Format
):
    logs.configure(form, "info")
    structlog.get_logger().info(forged, method=forged, **{forged: 1})
    logging.getLogger("library").info("%s", forged)
    text = capfd.readouterr().err
    assert text.count("\n") == 2
    assert forged not in text


def test_a_traceback_keeps_its_lines_behind_a_bar(capfd: pytest.CaptureFixture[str]):
    logs.configure("console", "info")
    try:
        raise ValueError("first\nsecond\x1b[0m")  # noqa: TRY301 - to be logged
    except ValueError:
        structlog.get_logger().exception("failed")
    head, *trace = lines(capfd)
    assert "failed" in head
    assert all(line.startswith("  | ") for line in trace)
    assert trace[-1] == "  | second\\x1b[0m"
