"""Who the connections are: load-0, load-1, ... with a token of their own, or all the same."""

from dataclasses import dataclass, field

from server.commands.common import make_token
from server.settings import Settings


@dataclass(frozen=True)
class Tokens:
    """The tokens of all connections: `given`, or signed with the secret in `settings`.

    `ttl_seconds` is how long a signed one is valid: longer than the run.
    """

    given: str | None = field(repr=False)
    settings: Settings
    ttl_seconds: float

    def of(self, connection: int) -> str:
        """Return the token of this connection (0, 1, 2 ...)."""
        if self.given is not None:
            return self.given
        return make_token(self.settings, f"load-{connection}", ttl_seconds=self.ttl_seconds)
