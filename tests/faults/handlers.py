"""The methods of the servers in these tests, and what such a server does to SQLite."""

import os

from server import Handlers
from server.journal import sqlite
from tests.integration import handlers as integration

handlers = Handlers()
handlers.include(integration.handlers)

# Statements that come behind the server's own, to see a test fail: `PRAGMA synchronous = OFF`.
sqlite._SETUP += tuple(filter(None, os.environ.get("FAULTS_SQLITE", "").split(";")))
