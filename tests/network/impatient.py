"""The methods of a server that finds silent peers soon; by setting, it takes 48 s.

The module of a server's methods is the one place where a test gets code into the real server.
"""

from server import connection, listener
from tests.network.handlers import handlers

PING_SECONDS = 0.5

listener.PING_SECONDS = PING_SECONDS  # type: ignore[misc]
connection.CLOSE_SECONDS = 1.0  # type: ignore[misc]

__all__ = ["handlers"]
