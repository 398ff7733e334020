"""How many files this process may have open: every connection is one.

Where the limit is reached the system gives no further connection to `accept`, and whatever else
needs a file fails as well: a process of the pool, the journal. So connections are kept below it.
"""

import resource
from typing import Final

import structlog

FILES_RESERVED: Final = 1280
"""What is no connection of a session: the journal, the pools, probes, logins, refusals."""

_log = structlog.get_logger(__name__)


def make_room(connections: int) -> int:
    """Raise the soft limit so that so many connections fit; return how many do.

    The usual soft limit is 1,024. The hard limit is the system's to raise: where it is too low,
    at least half of it is for connections, and a line of the log says so.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + FILES_RESERVED
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    except (OSError, ValueError):
        limit = soft  # macOS has a bound of its own
    if limit == wanted:
        return connections
    room = min(connections, max(limit // 2, limit - FILES_RESERVED))
    _log.warning("open_files_capped", limit=limit, wanted=wanted, connections=room)
    return room
