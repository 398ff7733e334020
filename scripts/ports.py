"""TCP ports on this machine, for programs that start servers."""

import random
import socket


def free_port() -> int:
    """Return a port nobody listens on.

    Below the range from which systems take the ports of outgoing connections: nothing else may get
    it while its server is down, not even the socket that tries to reach it.
    """
    while True:
        with socket.socket() as probe:
            port = random.randrange(15_000, 30_000)  # noqa: S311 - not a secret
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def listens(port: int) -> bool:
    """Tell whether somebody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
