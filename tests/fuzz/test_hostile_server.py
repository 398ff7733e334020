"""A hostile server against the client: its books are right, and requests end as documented."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.hostile_server import HostileServer


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=400))
def test_whatever_a_server_says_the_client_keeps_its_books(choices: bytes) -> None:
    HostileServer(choices).run()
