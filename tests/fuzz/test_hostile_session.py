"""A hostile client against the session rules: bounds hold, the log tells all, others are safe."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import session


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_whatever_a_client_does_its_session_keeps_its_bounds(choices: bytes) -> None:
    session(choices)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(range(24)), min_size=20, max_size=120), st.binary(max_size=200))
def test_whatever_a_client_does_in_long_it_keeps_them(steps: list[int], between: bytes) -> None:
    session(bytes(steps) + between + bytes(steps))
