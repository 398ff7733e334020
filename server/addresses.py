"""Whose address a connection comes from, also behind proxies. No I/O.

A proxy that is trusted appends the address it was called from to `X-Forwarded-For`; what stands
to the left of that was sent to it and may be invented. So the list is read from its right end, and
only of who is trusted himself: the first address that is not a trusted proxy's is the client's.
"""

import ipaddress
from collections.abc import Sequence

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Proxies:
    """The proxies that are trusted, by their networks (`10.0.0.0/8`, `::1`).

    Raises ValueError for what is no network.
    """

    def __init__(self, networks: Sequence[str] = ()) -> None:
        self._networks = tuple(ipaddress.ip_network(network) for network in networks)

    def trusts(self, address: str) -> bool:
        """Tell whether `address` is a trusted proxy's."""
        return bool(self._networks) and self._are_of(_parse(address))

    def client(self, peer: str, forwarded_for: Sequence[str]) -> str:
        """Return the address of the client that `peer` speaks for.

        `forwarded_for` are the values of all `X-Forwarded-For` headers, in order.
        """
        if not self.trusts(peer):
            return peer
        client = peer
        for entry in reversed(",".join(forwarded_for).split(",")):
            address = _parse(_without_port(entry.strip()))
            if address is None:
                return client  # the last one that somebody trusted has told
            client = str(address)
            if not self._are_of(address):
                return client
        return client

    def _are_of(self, address: _Address | None) -> bool:
        return address is not None and any(
            address.version == network.version and address in network for network in self._networks
        )


def network(address: str) -> str:
    """Return what one party has: an IPv4 address, or the /64 around an IPv6 one (RFC 4291)."""
    ip = _parse(address)
    if ip is None:
        return address  # a Unix socket has no address
    return str(ip) if isinstance(ip, ipaddress.IPv4Address) else str(int(ip) >> 64)


def _parse(address: str) -> _Address | None:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    return ip


def _without_port(entry: str) -> str:
    """Return the address of `192.0.2.1:80` and `[2001:db8::1]:80`, as some proxies write it."""
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    host, colon, _ = entry.partition(":")
    return host if colon and entry.count(":") == 1 else entry
