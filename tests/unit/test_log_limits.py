"""Repeats in the log are limited, and what is left out is counted to the line."""

import logging
from collections.abc import Mapping
from typing import Any

import pytest
from structlog import DropEvent

from server.log_events import LINES_MAX, MANY_LINES_MAX
from server.log_limits import INTERVAL_SECONDS, KINDS_MAX, OTHERS_LINES_MAX, Kind, Limiter


class Named:
    def __init__(self, name: str) -> None:
        self.name = name


class Bench:
    """A limiter with a clock of its own; `told` are its lines about what it left out."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.told: list[tuple[str, Mapping[str, Any]]] = []
        self.limiter = Limiter(lambda *line: self.told.append(line), lambda: self.now)

    def log(
        self, event: str = "refused", level: str = "info", name: str = "server.x", **fields: Any
    ) -> bool:
        """Tell whether a line of structlog passes."""
        try:
            self.limiter(Named(name), level, {"event": event, "level": level, **fields})
        except DropEvent:
            return False
        return True

    def log_many(self, count: int, **line: Any) -> int:
        """Return how many of so many equal lines pass."""
        return sum(self.log(**line) for _ in range(count))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def record(name: str, level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord(name, level, "x.py", 1, "text %s", (1,), None)


def test_so_many_lines_of_an_event_pass(bench: Bench) -> None:
    assert bench.log_many(10_000) == LINES_MAX


def test_what_is_left_out_is_told_once_the_interval_is_over(bench: Bench) -> None:
    bench.log_many(LINES_MAX + 7)
    bench.limiter.sweep()
    assert not bench.told
    bench.now += INTERVAL_SECONDS
    bench.limiter.sweep()
    bench.limiter.sweep()
    assert bench.told == [("info", {"of": "refused", "count": 7, "seconds": INTERVAL_SECONDS})]


def test_a_line_of_the_next_interval_tells_it_too(bench: Bench) -> None:
    bench.log_many(LINES_MAX + 7)
    bench.now += INTERVAL_SECONDS
    assert bench.log()
    assert [fields["count"] for _, fields in bench.told] == [7]


def test_what_is_left_at_the_end_is_told(bench: Bench) -> None:
    bench.log_many(LINES_MAX + 7)
    bench.limiter.close()
    assert [fields["count"] for _, fields in bench.told] == [7]


def test_lines_and_counts_add_up_whatever_the_pace(bench: Bench) -> None:
    passed = 0
    for _ in range(5000):
        passed += bench.log()
        bench.now += 0.01
        bench.limiter.sweep()
    bench.limiter.close()
    counted = sum(fields["count"] for _, fields in bench.told)
    assert passed + counted == 5000
    assert bench.limiter.suppressed_total == counted
    assert bench.limiter.suppressed == {"refused": counted}


def test_one_event_does_not_hide_another(bench: Bench) -> None:
    bench.log_many(100)
    assert bench.log("closing")


@pytest.mark.parametrize("detail", ["code", "status", "method"])
def test_one_code_or_method_does_not_hide_another(bench: Bench, detail: str) -> None:
    bench.log_many(100, **{detail: 1})
    assert bench.log(**{detail: 2})


def test_errors_are_limited_and_their_number_is_told_as_an_error(bench: Bench) -> None:
    assert bench.log_many(100, event="connection_failed", level="error") == LINES_MAX
    bench.limiter.close()
    assert [level for level, _ in bench.told] == ["error"]


def test_what_good_clients_do_all_the_time_has_more_room(bench: Bench) -> None:
    assert bench.log_many(5000, event="connection_opened") == MANY_LINES_MAX


def test_debug_lines_pass(bench: Bench) -> None:
    assert bench.log_many(5000, level="debug") == 5000
    assert all(bench.limiter.filter(record("asyncio", logging.DEBUG)) for _ in range(5000))


def test_lines_of_our_libraries_are_limited_like_ours(bench: Bench) -> None:
    passed = sum(bench.limiter.filter(record("asyncio")) for _ in range(100))
    assert passed == LINES_MAX
    bench.limiter.close()
    assert [fields["of"] for _, fields in bench.told] == ["asyncio"]


@pytest.mark.parametrize("name", ["", "shop"])
def test_what_handlers_log_has_a_bound_far_above_ours(bench: Bench, name: str) -> None:
    count = OTHERS_LINES_MAX + 100
    passed = bench.log_many(count, event="anything", name=name)
    assert passed == OTHERS_LINES_MAX
    assert sum(bench.limiter.filter(record("shop.pay")) for _ in range(count)) == passed


def test_memory_is_bounded_whatever_is_logged(bench: Bench) -> None:
    """Loggers with names made of data are a mistake of handlers, and no leak of ours."""
    for number in range(10_000):
        bench.limiter.take(Kind("info", f"shop.{number}"), 0)
        if number % 300 == 0:
            bench.now += INTERVAL_SECONDS
            bench.limiter.sweep()
        assert len(bench.limiter._intervals) <= KINDS_MAX + 1
    assert len(bench.limiter.suppressed) <= KINDS_MAX + 1
    assert bench.limiter.suppressed_total == sum(bench.limiter.suppressed.values()) == 10_000
    bench.now += INTERVAL_SECONDS
    bench.limiter.sweep()
    assert not bench.limiter._intervals


def test_more_kinds_than_are_told_apart_are_one(bench: Bench) -> None:
    for number in range(KINDS_MAX + 100):
        bench.log(name=f"shop.{number}")
    assert len(bench.limiter._intervals) == KINDS_MAX + 1
