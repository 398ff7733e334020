"""The benchmark's arithmetic: medians, ratios of pairs, targets, and how they are shown."""

from pathlib import Path

import pytest

from scripts.bench import scoreboard
from scripts.bench.context import Run
from scripts.bench.disk import probe
from scripts.bench.meter import Measurement, Meter
from scripts.bench.scoreboard import Figure, Target
from scripts.bench.stats import Spread
from scripts.bench.throughput import limited
from scripts.bench.websocket import ConnectionFailed


def test_the_ratio_is_that_of_pairs() -> None:
    """A machine that became half as fast between the pairs does not move the ratio."""
    assert Spread.of_ratios([100, 50, 99], [200, 100, 100]) == Spread(0.5, 0.5, 0.99)


def test_pairs_must_be_complete() -> None:
    with pytest.raises(ValueError, match="zip"):
        Spread.of_ratios([1.0], [1.0, 2.0])


def test_all_numbers_of_a_spread_are_formatted_alike() -> None:
    assert f"{Spread(1234.5, 1000, 2000):,.0f}" == "1,234 (1,000-2,000)"
    assert str(Spread(1, 0.5, 2)) == "1.00 (0.50-2.00)"


@pytest.mark.parametrize(
    ("target", "median", "met"),
    [
        (Target(1.5, at_least=True), 1.5, True),
        (Target(1.5, at_least=True), 1.49, False),
        (Target(1.3, at_least=False), 1.3, True),
        (Target(1.3, at_least=False), 1.31, False),
    ],
)
def test_the_median_decides_whether_a_target_is_met(
    target: Target, median: float, met: bool
) -> None:
    assert Figure("f", ratio=Spread(median, 0, 9), target=target).met is met


def test_what_was_not_measured_is_said() -> None:
    """A figure without a ratio is no success, and the reason is on its line."""
    figure = Figure("f", target=Target(1, at_least=True), note="no MongoDB")
    assert figure.met is None
    assert "not measured: no MongoDB" in scoreboard.table([figure])
    assert "not measured: no MongoDB" in scoreboard.as_markdown([figure])
    assert scoreboard.as_json([figure])[0]["ratio"] is None


def test_a_missed_target_is_loud() -> None:
    missed = Figure("f", "1/s", "2/s", Spread(0.5, 0.4, 0.6), Target(1, at_least=True), "echo")
    assert "0.50 (0.40-0.60)  >= 1.00  MISSED: echo" in scoreboard.table([missed])


def test_a_busy_load_generator_is_told() -> None:
    """A figure that says more about the load than about the servers is marked."""

    def run(load_cpu: float) -> Run:
        return Run(Measurement(1000, 1000, 1.0, 0.001, 0.001, 0.002, load_cpu), 0.5)

    assert not limited([run(0.5)], [run(0.6)])
    assert limited([run(0.5)], [run(0.95)]) == "limited by the load generator"


def test_too_few_replies_are_no_measurement() -> None:
    meter = Meter()
    meter.start()
    meter.last_seconds.append(0.001)
    meter.stop()
    with pytest.raises(ConnectionFailed, match="measure longer"):
        meter.measurement()


def test_the_probe_of_the_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    syncs = probe(tmp_path, size=100, rounds=2, writes=3)
    assert min(syncs) > 0
    assert not list(tmp_path.iterdir())
