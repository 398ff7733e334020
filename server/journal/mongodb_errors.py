"""MongoDB's errors as those of log.py."""

from collections.abc import Generator
from contextlib import contextmanager

from pymongo.errors import PyMongoError

from server.journal.log import Unavailable


@contextmanager
def mongodb_errors() -> Generator[None]:
    """Raise Unavailable for any error of the driver or the database."""
    try:
        yield
    except PyMongoError as error:
        # What follows is a dump of the whole topology or reply, far too long for a log line.
        text = str(error).partition(", Timeout: ")[0].partition(", full error: ")[0]
        raise Unavailable(f"MongoDB: {text}") from error
