"""How fast passwords may be guessed: by address and by name, in bounded memory.

    by address   10 wrong ones at once, then one per 30 s   a single guesser ends here
    by name      100 wrong ones at once, then one per 30 s  only guessers at many addresses get here

Over either bound even the right password is refused, or guessing could go on. So that guessers
cannot lock a user out, the bound of the name does not hold for addresses the user has logged in
from; and no single address can exhaust it, since its own bound is as slow.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from server.addresses import network

INTERVAL_SECONDS: Final = 30.0
ADDRESS_BURST: Final = 10
NAME_BURST: Final = 100
ENTRIES_MAX: Final = 10_000
"""How many addresses, names and known pairs are remembered; beyond, the oldest are forgotten."""


class TooManyLogins(Exception):
    """Not now, whatever the password; come back after `retry_after_seconds`."""

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Throttle:
    """Counts attempts before they are judged, so that many at once count as many."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._addresses = _Buckets(ADDRESS_BURST, clock)
        self._names = _Buckets(NAME_BURST, clock)
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def take(self, name: str, address: str) -> None:
        """Count an attempt. Raises TooManyLogins, then nothing is counted."""
        address = network(address)
        wait = self._addresses.wait_seconds(address)
        if (name, address) not in self._known:
            wait = max(wait, self._names.wait_seconds(name))
        if wait > 0:
            raise TooManyLogins("too many failed logins: try again later", wait)
        self._addresses.add(address, 1)
        self._names.add(name, 1)

    def give_back(self, name: str, address: str) -> None:
        """Forget an attempt that was no wrong guess."""
        self._addresses.add(network(address), -1)
        self._names.add(name, -1)

    def know(self, name: str, address: str) -> None:
        """Remember that the user has logged in from there."""
        pair = (name, network(address))
        self._known[pair] = None
        self._known.move_to_end(pair)
        if len(self._known) > ENTRIES_MAX:
            self._known.popitem(last=False)


class _Buckets:
    """Leaky buckets by key: each holds `burst` attempts and loses one per interval.

    Kept is only when a bucket will be empty; an empty one need not be kept.
    """

    def __init__(self, burst: int, clock: Callable[[], float]) -> None:
        self._burst_seconds = burst * INTERVAL_SECONDS
        self._clock = clock
        self._empty_at: OrderedDict[str, float] = OrderedDict()

    def wait_seconds(self, key: str) -> float:
        """Return how long until the bucket has room for one more; 0 when it has."""
        fill = self._empty_at.get(key, 0.0) - self._clock()
        return max(0.0, fill + INTERVAL_SECONDS - self._burst_seconds)

    def add(self, key: str, attempts: int) -> None:
        """Put that many attempts in, or take them out again."""
        now = self._clock()
        empty_at = max(now, self._empty_at.pop(key, now)) + attempts * INTERVAL_SECONDS
        if empty_at > now:
            self._empty_at[key] = empty_at
        if len(self._empty_at) > ENTRIES_MAX:
            self._empty_at.popitem(last=False)
