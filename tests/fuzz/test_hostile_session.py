"""A hostile client against the session rules: bounds hold, the log tells all, others are safe."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import session

COURSES = 2000


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_whatever_a_client_does_its_session_keeps_its_bounds(choices: bytes) -> None:
    session(choices)


@pytest.mark.parametrize("size", [100, 400, 1600])
def test_whatever_a_client_does_for_long_it_keeps_them(size: int) -> None:
    """Hypothesis likes it short; what goes wrong may need many steps."""
    for seed in range(COURSES * 100 // size):
        session(Random(seed).randbytes(size))
