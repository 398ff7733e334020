"""Why a server is not ready: every reason the code knows, for /readyz and for metrics.

What is not in Unready cannot make a server unready, so that a metric can say of each reason
whether it holds. Taking over the sessions of an earlier process is none: new ones are served
meanwhile; it is told all the same.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct


class Unready(StrEnum):
    """A reason not to send new clients here."""

    DRAINING = "draining"
    JOURNAL_UNAVAILABLE = "journal_unavailable"
    MEMORY_HIGH = "memory_high"


class Readiness(Struct, frozen=True):
    """Whether a server is ready: it is without `reasons`. `recovering` is for information."""

    reasons: Sequence[Unready]
    recovering: bool

    def as_json(self) -> dict[str, Any]:
        """Return what /readyz says."""
        said: dict[str, Any] = {"status": "not ready" if self.reasons else "ready"}
        if self.reasons:
            said["reasons"] = list(self.reasons)
        if self.recovering:
            said["recovering"] = True
        return said
