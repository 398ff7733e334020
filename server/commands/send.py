"""`queuesystem send`: send requests, print each result as one line of JSON as it arrives.

submit while fewer than IN_FLIGHT are unfinished -> print the oldest one's results -> next
"""

import asyncio
import getpass
import os
import sys
from argparse import ArgumentParser, Namespace
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from protocol.client import (
    ClientInfo,
    ConnectionFailed,
    RequestFailed,
    RequestHandle,
    Session,
    connect,
)
from protocol.codec import encode
from server.commands.common import (
    CommandError,
    add_settings,
    make_token,
    need_secret,
    seconds,
    settings_of,
)
from server.commands.params import Params, from_file, from_pairs
from server.settings import TOKEN_NAME, Settings, read_dotenv

HELP = "send requests and print their results as they arrive"
DESCRIPTION = """\
Send requests to a running server and print each result as one line of JSON, as it arrives. A lost
connection or a restarted server is no error: it connects again and goes on where it was.
"""
EXAMPLES = """\
examples:
  queuesystem send words --param text="to be or not"
  queuesystem send sleep --param seconds=3 --timeout 1
  echo '{"text": "a b"}' | queuesystem send wordcount --json -
  queuesystem send echo --json requests.jsonl    one request per line, run in this order
  queuesystem send echo --param text=hi --url ws://queue.example:8765/ws --token "$TOKEN"

exit codes: 0 all done, 1 a request failed (`error CODE: message` on standard error),
2 wrong usage, 3 no connection or not authenticated, 130 Ctrl-C (which cancels the requests).
"""
IN_FLIGHT: Final = 16
CONNECT_SECONDS: Final = 10.0
"""How long to try when there was no connection yet: the URL may be wrong."""
OUTAGE_SECONDS: Final = 86_400.0
"""How long to try when there was one: the server keeps the session for as long (session_ttl)."""

_ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not bound to


def add(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("method", metavar="METHOD", help="the method to call, such as echo")
    params = parser.add_mutually_exclusive_group()
    params.add_argument(
        "--param",
        metavar="NAME=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="parameters of one request; a VALUE that is JSON is taken as such, else as text",
    )
    params.add_argument(
        "--json",
        metavar="FILE",
        help="file with the parameters as a JSON object, or with one object per line for as many "
        "requests; - is standard input",
    )
    parser.add_argument(
        "--url", help="where the server is (default: ws://HOST:PORT/ws of the settings below)"
    )
    parser.add_argument(
        "--token",
        help=f"the token to authenticate with (default: {TOKEN_NAME} in the environment or .env, "
        "else one is signed with the configured secret)",
    )
    parser.add_argument(
        "--subject", help="who the signed token is for (default: the name of your account)"
    )
    parser.add_argument(
        "--timeout", type=seconds, metavar="SECONDS", help="how long each request may run"
    )
    parser.add_argument(
        "--connect-timeout",
        type=seconds,
        metavar="SECONDS",
        default=CONNECT_SECONDS,
        help="how long to try to reach the server (default: %(default)g)",
    )
    add_settings(parser, {"host", "port", "jwt_secret", "jwt_audience", "jwt_issuer", "token_ttl"})


def run(arguments: Namespace) -> int:
    """Send the requests; return 0 when all were done, 1 when one failed."""
    settings = settings_of(arguments)
    requests = from_file(arguments.json) if arguments.json else [from_pairs(arguments.param)]
    url = arguments.url or _url(settings)
    return asyncio.run(_send(arguments, url, _token(arguments, settings), requests))


def _url(settings: Settings) -> str:
    host = _ANY_ADDRESS.get(settings.host, settings.host)
    return f"ws://{f'[{host}]' if ':' in host else host}:{settings.port}/ws"


def _token(arguments: Namespace, settings: Settings) -> str | Callable[[], str]:
    """Return the token to use, or what signs a fresh one each time."""
    given = (
        arguments.token or os.environ.get(TOKEN_NAME) or read_dotenv(Path(".env")).get(TOKEN_NAME)
    )
    if given:
        return given
    need_secret(settings, f"no token can be signed, and none is given (--token, {TOKEN_NAME})")
    subject = arguments.subject or _account()
    return lambda: make_token(settings, subject)


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "cli"


async def _send(
    arguments: Namespace, url: str, token: str | Callable[[], str], requests: Sequence[Params]
) -> int:
    try:
        async with connect(
            url,
            token=token,
            connect_timeout_seconds=arguments.connect_timeout,
            give_up_after_seconds=OUTAGE_SECONDS,
            client=ClientInfo("queuesystem-send"),
        ) as session:
            try:
                return await _print_all(session, arguments.method, requests, arguments.timeout)
            except asyncio.CancelledError:  # Ctrl-C
                await session.close(cancel=True)
                raise
    except ConnectionFailed as error:
        raise CommandError(f"no connection to {url}: {error}\n{_ADVICE}", exit_code=3) from error


_ADVICE: Final = (
    "Is the server running (`queuesystem serve`), is that its URL (--url), "
    "and is the token or secret the right one?"
)


async def _print_all(
    session: Session, method: str, requests: Sequence[Params], timeout_seconds: float | None
) -> int:
    """Run the requests and print their results in order; return the exit code."""
    waiting = deque(requests)
    running: deque[RequestHandle] = deque()
    failed = False
    while waiting or running:
        while waiting and len(running) < IN_FLIGHT:
            running.append(session.submit(method, waiting.popleft(), timeout=timeout_seconds))
        try:
            async for result in running.popleft():
                print(encode(result).decode(), flush=True)
        except RequestFailed as error:
            failed = True
            print(f"error {error}", file=sys.stderr, flush=True)
    return 1 if failed else 0
