"""The tests read PromQL right."""

import pytest

from tests.deploy.promql import compared, matched, metric_names, quicker


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("up", {"up"}),
        ('up{job="down"} == 0 or absent(up{job="down"})', {"up"}),
        ("sum by (a, b) (rate(x_total[5m])) / on (a) group_left (c) y", {"x_total", "y"}),
        ("sum(rate(x_total{code=~'a|b'}[$__rate_interval])) without (z)", {"x_total"}),
        ("histogram_quantile(0.99, sum(rate(x_bucket[5m])) by (le)) > 1e3", {"x_bucket"}),
        ("min_over_time(x[5m]) - min_over_time(x[5m] offset 15m) > 100", {"x"}),
        ("time() - x and y unless a:b:c", {"x", "y", "a:b:c"}),
        ("x * on (a) group_left y > bool 0", {"x", "y"}),
        ("vector(0)", set()),
    ],
)
def test_metric_names(expression: str, names: set[str]) -> None:
    assert metric_names(expression) == names


def test_matched_labels() -> None:
    expression = 'sum(rate(x_total{a="1", b=~"2|3"}[5m])) / y{a!="4"} + z'
    assert matched(expression) == {
        ("x_total", "a", "1"),
        ("x_total", "b", "2"),
        ("x_total", "b", "3"),
        ("y", "a", "4"),
    }


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("a > 1 and b <= 2", "a > bool 1 and b <= bool 2"),
        ('a{x!="1>0"} != 1', 'a{x!="1>0"} != bool 1'),
        ("a > bool 1", "a > bool 1"),
        ("a + b", "a + b"),
    ],
)
def test_comparisons_that_answer(expression: str, answer: str) -> None:
    assert compared(expression) == answer


def test_shorter_durations() -> None:
    expression = 'rate(a{x="5m"}[5m]) + b offset 1h > 15'
    assert quicker(expression, 300) == 'rate(a{x="5m"}[1000ms]) + b offset 12000ms > 15'
