"""A token bucket: what happens at once, and on average."""

import pytest

from server.rate import RETRY_SECONDS_MIN, RateLimit


def make(per_second: float = 10, burst: float = 20) -> RateLimit:
    limit = RateLimit(per_second, burst)
    assert limit.room(1000.0) == burst
    return limit


def test_a_burst_may_happen_at_once_and_then_nothing() -> None:
    limit = make()
    limit.take(20)
    assert limit.room(1000.0) == 0


def test_room_comes_back_with_time_and_no_more_than_a_burst() -> None:
    limit = make()
    limit.take(20)
    assert limit.room(1000.45) == 4
    assert limit.room(2000.0) == 20


def test_parts_of_a_token_add_up() -> None:
    limit = make()
    limit.take(20)
    rooms = [limit.room(1000 + tenth / 16) for tenth in range(17)]
    assert rooms[-1] == 10


@pytest.mark.parametrize("back", [0.5, 3600.0])
def test_a_clock_that_was_set_back_neither_gives_nor_takes(back: float) -> None:
    limit = make()
    limit.take(15)
    assert limit.room(1000 - back) == 5
    assert limit.room(1000 - back + 0.5) == 10


def test_who_found_no_room_is_told_when_there_is_some() -> None:
    limit = make(per_second=0.5, burst=1)
    limit.take(1)
    assert limit.room(1001.0) == 0
    assert limit.wait_seconds() == pytest.approx(1.0)
    assert limit.room(1001.0 + limit.wait_seconds()) == 1


def test_nobody_is_told_to_come_back_at_once() -> None:
    limit = make(per_second=10_000, burst=10_000)
    limit.take(10_000)
    assert limit.wait_seconds() == RETRY_SECONDS_MIN
