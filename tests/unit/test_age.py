"""The clock by which things grow old."""

from server.age import AgeClock


class Clocks:
    """The system's two clocks, for the test to set."""

    def __init__(self) -> None:
        self.wall = 1_000_000.0
        self.monotonic = 5.0
        self.age = AgeClock(lambda: self.wall, lambda: self.monotonic)

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


def test_it_is_the_systems_time_while_nobody_sets_that() -> None:
    clocks = Clocks()
    clocks.pass_by(10)
    assert clocks.age() == 1_000_010


def test_it_does_not_go_along_when_the_clock_is_set_forward() -> None:
    clocks = Clocks()
    clocks.wall += 86_400
    clocks.pass_by(10)
    assert clocks.age() == 1_000_010


def test_it_goes_along_when_the_clock_is_set_back() -> None:
    clocks = Clocks()
    clocks.wall -= 86_400
    clocks.pass_by(10)
    assert clocks.age() == 1_000_010 - 86_400
