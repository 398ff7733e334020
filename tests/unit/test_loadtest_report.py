"""What scripts/loadtesting makes of the counts: exit code, text, progress and picture."""

import io
import signal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from scripts.loadtesting import plot, report
from scripts.loadtesting.meter import Tick
from scripts.loadtesting.options import Options
from scripts.loadtesting.progress import Progress
from scripts.loadtesting.run import Run, Second
from scripts.loadtesting.svg import linear, logarithmic

SVG = "{http://www.w3.org/2000/svg}"


def run(**options: Any) -> Run:
    """Return a run of two requests that went well."""
    values: dict[str, Any] = {
        "url": "ws://127.0.0.1:8765/ws",
        "ca": None,
        "token": None,
        "secret": None,
        "connections": 2,
        "window": 1,
        "rate": None,
        "processes": 1,
        "ramp_up": 0.0,
        "warm_up": 0.0,
        "duration": 2.0,
        "drain": 1.0,
        "method": "<echo>",
        "params": b"{}",
        "seed": 0,
        "json": Path("unused"),
        "plot": None,
    }
    made = Run(Options(**(values | options)), started_at=0.0)
    totals = made.totals
    totals.sent = totals.done = totals.ended = 2
    totals.firsts.add([0.001, 0.002])
    totals.dones.add([0.002, 0.004])
    totals.seconds = 2.0
    totals.cpu_shares = [0.5]
    made.seconds = [
        Second(1.0, 1.0, 1, 1, 0, 0.002, 0.002, 2),
        Second(2.0, 1.0, 1, 0, 0, 0.0, 0.0, 2),
        Second(2.1, 0.1, 0, 1, 0, 0.004, 0.004, 2),
    ]
    return made


def test_all_done_is_success() -> None:
    """And says so."""
    found = run()
    assert found.exit_code == 0
    assert found.rate == 1.0
    assert "nothing lost, nothing repeated, all in order" in report.text(found)
    assert "note:" not in report.text(found)


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        ({"sent": 3}, 1, "unfinished requests had no end"),
        ({"not_sent": 7}, 1, "7 not sent"),
        ({"errors": {"timeout": 1}}, 1, "timeout 1"),
        ({"violations": {"lost": 4}}, 1, "4 VIOLATIONS (lost 4)"),
        ({"violations": {"lost": 4}, "fatal": "gone"}, 1, "VIOLATIONS"),
        ({"fatal": "gone"}, 2, ""),
    ],
)
def test_what_went_wrong_is_told(change: dict[str, Any], code: int, told: str) -> None:
    """In the report and by the exit code."""
    found = run()
    for name, value in change.items():
        counter = getattr(found.totals, name)
        if isinstance(value, dict):
            counter.update(value)
        else:
            setattr(found.totals, name, value)
    assert found.exit_code == code
    assert told in report.text(found)


def test_a_run_that_was_stopped_has_the_exit_code_of_the_signal() -> None:
    """Unless there was a violation; what did not end then is nobody's fault."""
    found = run()
    found.totals.sent += 5
    found.stopped_by = signal.SIGINT
    assert found.exit_code == 130
    assert "stopped early (SIGINT)" in report.text(found)
    assert "had no end" not in report.text(found)
    found.totals.violations["order"] = 1
    assert found.exit_code == 1


def test_a_busy_load_generator_is_told() -> None:
    """With what to do about it; one busy process of several is enough."""
    found = run(processes=2)
    found.totals.cpu_shares = [0.5, 0.95]
    assert "try --processes 3" in report.text(found)
    assert report.as_json(found)["generator"] == {"cpu_shares": [0.5, 0.95], "limited": True}


def test_the_json_holds_no_secret() -> None:
    """Nor does the text of the options."""
    found = run(secret="s3cret", token="t0ken")
    for text in (str(report.as_json(found)), repr(found.options)):
        assert "s3cret" not in text
        assert "t0ken" not in text


@pytest.mark.parametrize("html", [False, True])
def test_the_picture_is_well_formed(html: bool) -> None:
    """Texts are escaped, and every axis and line is there."""
    root = ElementTree.fromstring(plot.draw(run(), html=html).removeprefix("<!DOCTYPE html>"))  # noqa: S314
    texts = [text.text or "" for text in root.iter(f"{SVG}text")]
    assert any(text.startswith("<echo> at ws://") for text in texts)
    for label in ("latency", "requests/s", "seconds since the start", "p99", "50 %", "99 %"):
        assert label in texts
    # two latencies, sent and done, and p50 and p99 on both sides of a second with nothing done
    assert len(list(root.iter(f"{SVG}polyline"))) == 2 + 2 + 4


def test_the_picture_of_nothing_is_well_formed() -> None:
    """A server that answered nothing has no latencies to draw."""
    found = run()
    found.seconds = []
    found.totals = type(found.totals)(seconds=1.0)
    ElementTree.fromstring(plot.draw(found, html=False))  # noqa: S314


def test_a_long_run_has_no_more_points_than_can_be_seen() -> None:
    """Counts of neighbours are added, their worst latency stays."""
    found = run()
    found.seconds = [Second(k, 1.0, 10, 10, 0, 0.001, 0.002, 2) for k in range(1, 5001)]
    found.seconds[1234] = found.seconds[1234]._replace(p99=7.0)
    root = ElementTree.fromstring(plot.draw(found, html=False))  # noqa: S314
    lengths = [len(line.attrib["points"].split()) for line in root.iter(f"{SVG}polyline")]
    assert max(lengths) <= plot.POINTS_MAX
    assert "10 s" in [text.text for text in root.iter(f"{SVG}text")]


def test_axes_end_at_round_values() -> None:
    """The ends are ticks, and everything is between them."""
    axis = linear("x", 4321)
    assert [name for _, name in axis.ticks] == ["0", "1,000", "2,000", "3,000", "4,000", "5,000"]
    assert 0 < axis.place(4321) < 1
    axis = logarithmic("y", 0.003, 0.2, str)
    assert [tick for tick, _ in (axis.ticks[0], axis.ticks[-1])] == pytest.approx([0.001, 1])
    assert [axis.place(value) for value in (0, 0.001, 1)] == pytest.approx([0, 0, 1])


def test_progress_is_a_line_for_five_seconds_in_a_log() -> None:
    """On a terminal it is one for each; an idle second has no latency."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    log, terminal = io.StringIO(), Terminal()
    for stream in (log, terminal):
        progress = Progress(stream, 3)
        for second in range(1, 6):
            progress.tick(Tick(second, at=second, seconds=1.0, sent=100, connected=3))
    assert len(log.getvalue().splitlines()) == 1
    assert len(terminal.getvalue().splitlines()) == 5
    assert "100/s" in log.getvalue()
    assert "p99        - ms" in log.getvalue()
    assert "connections 3/3" in log.getvalue()
