"""Whose address counts: the peer's, or what trusted proxies tell, and nothing anybody invents."""

import pytest

from server.addresses import Proxies, network

PROXIES = Proxies(["10.0.0.0/8", "2001:db8:ffff::/48"])
PROXY = "10.0.0.1"


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        pytest.param("192.0.2.1", [], "192.0.2.1", id="no proxy"),
        pytest.param("192.0.2.1", ["203.0.113.9"], "192.0.2.1", id="told by nobody trusted"),
        pytest.param(PROXY, ["203.0.113.9"], "203.0.113.9", id="told by a trusted proxy"),
        pytest.param(
            PROXY, ["1.2.3.4, 203.0.113.9"], "203.0.113.9", id="invented by the client, in a list"
        ),
        pytest.param(
            PROXY, ["1.2.3.4", "203.0.113.9"], "203.0.113.9", id="invented, in a header before"
        ),
        pytest.param(
            PROXY, ["1.2.3.4, 203.0.113.9, 10.9.9.9"], "203.0.113.9", id="two trusted proxies"
        ),
        pytest.param(
            PROXY, ["10.1.1.1, 203.0.113.9"], "203.0.113.9", id="invented to look like a proxy"
        ),
        pytest.param(PROXY, ["10.1.1.1, 10.2.2.2"], "10.1.1.1", id="from inside"),
        pytest.param(PROXY, [], PROXY, id="the proxy itself"),
        pytest.param(PROXY, [""], PROXY, id="empty"),
        pytest.param(PROXY, ["203.0.113.9, unknown"], PROXY, id="told as unknown"),
        pytest.param(PROXY, ["unknown, 203.0.113.9"], "203.0.113.9", id="unknown further away"),
        pytest.param(PROXY, ["203.0.113.9:4711"], "203.0.113.9", id="with a port"),
        pytest.param(PROXY, ["[2001:db8::9]:4711"], "2001:db8::9", id="IPv6 with a port"),
        pytest.param(PROXY, ["2001:db8::9"], "2001:db8::9", id="IPv6"),
        pytest.param("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9", id="IPv4 in IPv6"),
        pytest.param("2001:db8:ffff::1", ["203.0.113.9"], "203.0.113.9", id="an IPv6 proxy"),
        pytest.param("", ["203.0.113.9"], "", id="a Unix socket"),
    ],
)
def test_the_client_is_the_last_one_who_is_no_trusted_proxy(
    peer: str, forwarded_for: list[str], client: str
) -> None:
    assert PROXIES.client(peer, forwarded_for) == client


def test_without_trusted_proxies_nobody_is_believed() -> None:
    assert Proxies().client(PROXY, ["203.0.113.9"]) == PROXY


@pytest.mark.parametrize("text", ["nonsense", "10.0.0.1/8", "10.0.0.0/33", "*"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=text.replace("*", r"\*")):
        Proxies([text])


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
    ],
)
def test_one_party_has_an_ipv4_address_or_an_ipv6_64(one: str, other: str, same: bool) -> None:
    assert (network(one) == network(other)) is same
