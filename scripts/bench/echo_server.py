"""What our server is compared with: `websockets` and nothing else, sending back what it gets.

Run with the port to listen on. The same library, loop and limits as server/app.py, so that the
difference is what queueSystem does.
"""

import sys
from http import HTTPStatus

import uvloop
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response


async def main(port: int) -> None:
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
        max_size=2**20,
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
    uvloop.run(main(int(sys.argv[1])))
