"""A hostile server against the client: its books are right, and requests end as documented."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.hostile_server import HostileServer


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_whatever_a_server_says_the_client_keeps_its_books(choices: bytes) -> None:
    HostileServer(choices).run()


def test_whatever_a_server_says_for_long_it_keeps_them() -> None:
    for seed in range(1000):
        HostileServer(Random(seed).randbytes(300)).run()
