"""How many connections an address may have, and how many handshakes all have in a second."""

import pytest

from server.addresses import Proxies
from server.admission import BURST_SECONDS, SPARE_PER_ADDRESS, Admission, NotNow


class Visitor:
    def __init__(self, address: str = "192.0.2.1") -> None:
        self.address = address
        self.network = ""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make(clock: Clock | None = None, per_address: int = 2, per_second: int = 100) -> Admission:
    return Admission(
        clock or Clock(),
        proxies=Proxies(["10.0.0.0/8"]),
        max_connections_per_address=per_address,
        handshakes_per_second=per_second,
    )


def arrive(admission: Admission, address: str = "192.0.2.1", *forwarded_for: str) -> Visitor:
    """Connect and ask for a WebSocket. Raises NotNow; the connection is then still there."""
    visitor = Visitor(address)
    assert admission.enter(visitor)
    admission.identify(visitor, forwarded_for)
    admission.admit(visitor)
    return visitor


def test_an_address_may_have_so_many_connections_and_others_as_many() -> None:
    admission = make()
    arrive(admission)
    arrive(admission)
    with pytest.raises(NotNow) as refused:
        arrive(admission)
    assert refused.value.limit == "connections_per_address"
    assert admission.rejected["connections_per_address"] == 1
    arrive(admission, "192.0.2.2")


def test_addresses_of_one_ipv6_network_count_together() -> None:
    admission = make(per_address=1)
    arrive(admission, "2001:db8::1")
    with pytest.raises(NotNow):
        arrive(admission, "2001:db8::2")


def test_a_connection_that_ended_makes_room() -> None:
    admission = make(per_address=1)
    first = arrive(admission)
    admission.leave(first)
    admission.leave(first)  # the second time counts for nothing
    arrive(admission)
    with pytest.raises(NotNow):
        arrive(admission)


def test_nothing_is_kept_of_who_is_gone() -> None:
    admission = make()
    admission.leave(arrive(admission))
    admission.leave(arrive(admission, "10.0.0.1", "203.0.113.9"))
    never_identified = Visitor("10.0.0.1")
    admission.enter(never_identified)
    admission.leave(never_identified)
    assert admission.addresses == 0


def test_far_too_many_are_cut_off_before_they_have_said_anything() -> None:
    admission = make()
    visitors = [Visitor() for _ in range(2 + SPARE_PER_ADDRESS + 1)]
    assert [admission.enter(visitor) for visitor in visitors] == [True] * 102 + [False]
    assert admission.rejected["connections_per_address"] == 1
    for visitor in visitors:
        admission.leave(visitor)
    assert admission.addresses == 0


def test_behind_a_trusted_proxy_its_clients_count_and_not_the_proxy() -> None:
    admission = make(per_address=1)
    for client in ("203.0.113.1", "203.0.113.2", "203.0.113.3"):
        assert arrive(admission, "10.0.0.1", client).address == client
    with pytest.raises(NotNow):
        arrive(admission, "10.0.0.1", "203.0.113.3")


def test_who_invents_a_forwarded_address_counts_for_his_own() -> None:
    admission = make(per_address=1)
    arrive(admission, "192.0.2.1", "203.0.113.1")
    with pytest.raises(NotNow):
        arrive(admission, "192.0.2.1", "203.0.113.2")


def test_more_handshakes_than_the_burst_are_told_to_come_back() -> None:
    clock = Clock()
    admission = make(clock, per_address=10_000, per_second=5)
    for _ in range(5 * BURST_SECONDS):
        arrive(admission)
    with pytest.raises(NotNow) as refused:
        arrive(admission)
    assert (refused.value.limit, refused.value.retry_after_seconds) == ("handshake_rate", 0.2)
    assert admission.rejected["handshake_rate"] == 1
    clock.now += 0.2
    arrive(admission)


def test_who_is_refused_for_its_address_takes_no_handshake_from_others() -> None:
    admission = make(per_address=1, per_second=1)
    arrive(admission)
    for _ in range(2 * BURST_SECONDS):
        with pytest.raises(NotNow):
            arrive(admission)
    arrive(admission, "192.0.2.2")
