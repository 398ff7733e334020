"""The command line: `queuesystem COMMAND ...`; the commands are the modules of server.commands.

Exit codes: 0 done, 1 it was tried and failed, 2 wrong usage or settings, 3 no connection or not
authenticated, 130 interrupted by Ctrl-C, 141 the reader of the output went away.
"""

import os
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final

from server.commands import requests, send, serve, sessions, token, user
from server.commands.common import CommandError
from server.settings import SettingsError

_COMMANDS: Final = {
    "serve": serve,
    "send": send,
    "token": token,
    "user": user,
    "requests": requests,
    "sessions": sessions,
}
_EXAMPLES: Final = """\
a first session:
  queuesystem serve                              run the server with the demo methods
  queuesystem send words --param text="a b c"    send a request, see its results stream back

Try `queuesystem COMMAND --help` for more.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default: this process's) and return its exit code.

    Raises SystemExit as argparse does: 0 for --help and --version, 2 for wrong usage.
    """
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except SettingsError as error:
        print(f"queuesystem: {error}", file=sys.stderr)
        return 2
    except CommandError as error:
        print(f"queuesystem: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Nothing may be written any more, not even what the interpreter flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="queuesystem",
        description="A WebSocket server with a durable FIFO queue and a worker per session.",
        epilog=_EXAMPLES,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action="version", version=f"queuesystem {version('queuesystem')}"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, command in _COMMANDS.items():
        one = commands.add_parser(
            name,
            help=command.HELP,
            description=command.DESCRIPTION,
            epilog=command.EXAMPLES,
            formatter_class=RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add(one)
        one.set_defaults(run=command.run)
    return parser
