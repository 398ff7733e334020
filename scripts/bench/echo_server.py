"""What our server is compared with: `websockets` and nothing else, sending back what it gets.

    python echo_server.py PORT LOOP MAX_MESSAGE_BYTES

LOOP is `uvloop`, as server/app.py has it, so that the difference is what queueSystem does, or
`asyncio`, the loop that the documentation of `websockets` starts a server with. The library and
the limits are those of server/app.py.
"""

import asyncio
import sys
from http import HTTPStatus

import uvloop
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response


async def main(port: int, max_message_bytes: int) -> None:
    """Serve until the process is ended."""
    async with serve(
        echo,
        "127.0.0.1",
        port,
        compression=None,
        process_request=answer_probe,
        server_header=None,
        open_timeout=10,
        ping_interval=20,
        ping_timeout=20,
        close_timeout=5,
        max_size=max_message_bytes,
        max_queue=16,
        write_limit=64 * 1024,
        backlog=4096,
        reuse_address=True,
    ) as server:
        await server.serve_forever()


async def echo(connection: ServerConnection) -> None:
    """Send every message back."""
    async for message in connection:
        await connection.send(message)


def answer_probe(connection: ServerConnection, request: Request) -> Response | None:
    """Answer /readyz as our server does, so that the starter waits for both in the same way."""
    if request.path == "/readyz":
        return connection.respond(HTTPStatus.OK, "ready\n")
    return None


if __name__ == "__main__":
    run = {"uvloop": uvloop.run, "asyncio": asyncio.run}[sys.argv[2]]
    run(main(int(sys.argv[1]), int(sys.argv[3])))
