"""The command line, checked."""

import argparse
from dataclasses import dataclass
from typing import Final

from scripts.arguments import count
from scripts.crashing.options import add_journal, complete

CLIENTS_MAX: Final = 2000
RESTARTS_MAX: Final = 1000

DESCRIPTION: Final = """\
Restart a queueSystem server under the load of real clients (protocol/client.py), with SIGTERM, on
the same port and journal, and decide whether its users noticed:

  nothing is lost       every request was answered, with every result
  nothing is repeated   no handler ran twice for a request
  nobody waits long     no request took longer than the restart (from SIGTERM until the next server
                        is ready) and 2 s

The first two are decided from the history of what clients sent and got and handlers did
(scripts/check.py does the same once more). --replace starts each new server beside the old one.
"""
EPILOG: Final = """\
exit codes:
  0    none of this was broken
  1    something was; what, and where the history is, is printed
  2    wrong usage

examples:
  .venv/bin/python scripts/restarts.py
  .venv/bin/python scripts/restarts.py --clients 50 --restarts 3 --journal mongodb --replace
"""


@dataclass(frozen=True)
class Options:
    """What to do. `replace` is how: the new server starts before the old one ends."""

    clients: int
    restarts: int
    journal: str
    replace: bool
    seed: int


def parse() -> Options:
    """Read the command line; exits with code 2 when it is wrong."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--clients",
        type=count(CLIENTS_MAX),
        default=200,
        metavar="N",
        help="each with a session of its own (default: %(default)s)",
    )
    parser.add_argument(
        "--restarts",
        type=count(RESTARTS_MAX),
        default=10,
        metavar="N",
        help="one after the other (default: %(default)s)",
    )
    add_journal(parser)
    parser.add_argument(
        "--replace", action="store_true", help="start the new server with --replace, not after"
    )
    parser.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="of what is asked for, and when the restarts come (default: a new one)",
    )
    values = parser.parse_args()
    complete(parser, values)
    return Options(**vars(values))
