"""The methods of the servers in these tests, and what is different in such a server."""

import os

from server import Handlers
from server.journal import committer, mongodb, sqlite
from tests.integration import handlers as integration

handlers = Handlers()
handlers.include(integration.handlers)

# Statements that come behind the server's own, to see a test fail: `PRAGMA synchronous = OFF`.
sqlite._SETUP += tuple(filter(None, os.environ.get("FAULTS_SQLITE", "").split(";")))

if "FAULTS_QUICK" in os.environ:  # so that tests do not wait long for an outage to be noticed
    committer.STALLED_SECONDS = 0.5  # type: ignore[misc]
    mongodb.SELECTION_MS = 500  # type: ignore[misc]
