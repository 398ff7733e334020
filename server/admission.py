"""Who may have connections: so many from one address, and so many handshakes a second. No I/O.

    accepted by the system -> enter    by the peer's address, unless that is a trusted proxy's
    its request has come   -> identify for whom a trusted proxy speaks; then that one counts
    wants a WebSocket      -> admit    refused over a bound, with a status and a time to come back
    lost                   -> leave    whatever has happened before

A connection that is refused has cost a request, but no token was checked for it. Beyond
SPARE_PER_ADDRESS more it does not even cost that.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from server.addresses import Proxies, network
from server.rate import RateLimit

SPARE_PER_ADDRESS: Final = 100
"""What an address may have beside its WebSockets: probes, logins, refusals under way."""
LIMITS: Final = ("connections_per_address", "handshake_rate")
"""The limits that keep connections out here, by the names of Admission.rejected."""
BURST_SECONDS: Final = 10
"""So many seconds' worth of handshakes may come at once: after a restart everybody comes back."""


class Visitor(Protocol):
    """A connection. `address` is the client's, `network` what it counts for, "" for nothing."""

    address: str
    network: str


class NotNow(Exception):
    """No WebSocket for now, for the reason `limit`; come back after `retry_after_seconds`."""

    def __init__(self, limit: str, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.limit = limit
        self.retry_after_seconds = retry_after_seconds


class Admission:
    """Counts the connections there are, by address; and what was refused.

    `rejected` counts by the limit that kept them out (of LIMITS).
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        proxies: Proxies,
        max_connections_per_address: int,
        handshakes_per_second: int,
    ) -> None:
        self.rejected: Counter[str] = Counter()
        self._clock = clock
        self._proxies = proxies
        self._max_per_address = max_connections_per_address
        self._handshakes = RateLimit(handshakes_per_second, BURST_SECONDS * handshakes_per_second)
        self._connections: Counter[str] = Counter()

    @property
    def addresses(self) -> int:
        """How many addresses have connections."""
        return len(self._connections)

    def enter(self, visitor: Visitor) -> bool:
        """Count a new connection; False when it is to be cut off."""
        if not self._proxies.trusts(visitor.address):
            self._count(visitor, visitor.address)
            if self._connections[visitor.network] > self._max_per_address + SPARE_PER_ADDRESS:
                self.rejected["connections_per_address"] += 1
                return False
        return True

    def identify(self, visitor: Visitor, forwarded_for: Sequence[str]) -> None:
        """Take note of the client's address when a trusted proxy tells it."""
        if not visitor.network:
            visitor.address = self._proxies.client(visitor.address, forwarded_for)
            self._count(visitor, visitor.address)

    def admit(self, visitor: Visitor) -> None:
        """Let `visitor` have a WebSocket. Raises NotNow."""
        if self._connections[visitor.network] > self._max_per_address:
            self.rejected["connections_per_address"] += 1
            raise NotNow("connections_per_address", "too many connections from your address", 1)
        if self._handshakes.room(self._clock()) <= 0:
            self.rejected["handshake_rate"] += 1
            wait = self._handshakes.wait_seconds()
            raise NotNow("handshake_rate", "too many handshakes a second", wait)
        self._handshakes.take(1)

    def leave(self, visitor: Visitor) -> None:
        """Forget a connection; does nothing the second time."""
        name, visitor.network = visitor.network, ""
        if not name:
            return
        self._connections[name] -= 1
        if not self._connections[name]:
            del self._connections[name]

    def _count(self, visitor: Visitor, address: str) -> None:
        # Of an unknown address (a Unix socket) there is one, as if it was one machine.
        visitor.network = network(address) or "unknown"
        self._connections[visitor.network] += 1
