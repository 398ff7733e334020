"""An echo server made of the product's own WebSocket layer, for conformance tests.

    server/listener.py + server/connection.py -> every message comes back as it came

The real server understands only its own frames; what RFC 6455 says about messages shows only where
any message is answered. The first line it prints is its port.

The Autobahn test suite (301 cases without compression, in 20 seconds) needs a Python 2.7:

    .venv/bin/python -m tests.network.echo_host --port 9001 --max-message-bytes 67108864
    pip2 install autobahntestsuite
    wstest -m fuzzingclient -s tests/network/autobahn.json
"""

import asyncio
from argparse import ArgumentParser

import uvloop
from websockets.http11 import Request, Response

from server import logs
from server.connection import Connection
from server.listener import Listener
from server.sockets import listen


class Echo:
    """See connection.Receiver: what comes goes back, text as text and binary as binary."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def take(self, message: str | bytes) -> None:
        connection = self._connection
        if isinstance(message, str):
            connection.send(message.encode())
        elif connection.open:  # the product never sends binary messages
            connection._protocol.send_binary(message)
            connection._write()

    def resumed(self) -> None:
        """There is nothing that waits: an echo has no backpressure."""

    def lost(self) -> None:
        """There is nothing to tidy up."""


async def accept(_connection: Connection, _request: Request) -> Response | None:
    """Take every request for a WebSocket handshake."""
    return None


async def serve(connection: Connection) -> None:
    connection.listen(Echo(connection))


async def run(port: int, max_message_bytes: int) -> None:
    """Serve until the process is killed."""
    listener = Listener(accept, serve, open_timeout_seconds=10, max_message_bytes=max_message_bytes)
    await listener.start(listen("127.0.0.1", port))
    print(listener.port, flush=True)  # noqa: T201 - that is what it is asked for
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--max-message-bytes", type=int, default=2**20)
    arguments = parser.parse_args()
    logs.configure("json", "info")
    uvloop.run(run(arguments.port, arguments.max_message_bytes))
