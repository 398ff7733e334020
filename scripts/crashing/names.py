"""The environment variables that tell a server under test its part (handlers.py reads them)."""

from typing import Final

HISTORY: Final = "CRASHTEST_HISTORY"
"""The directory of the history."""
SERVER: Final = "CRASHTEST_SERVER"
"""The name of the server process in the history."""
TRIGGER: Final = "CRASHTEST_TRIGGER"
"""When it is to die, if by itself (trigger.py)."""
