"""Fuzz queueSystem.

.venv/bin/python scripts/fuzz.py socket --messages 1000000 --seed 1
"""

import argparse
import json
import logging
import secrets
import sys
import tempfile
from functools import partial
from pathlib import Path

import uvloop
from fuzzing import guided

TARGETS = {
    "codec": "messages of clients and servers",
    "session": "the rules of a session, by a client that does whatever it likes",
    "entries": "commits of the journal",
}


def main() -> int:
    """Run as the command line says; return 1 when something was found."""
    arguments = _parser().parse_args()
    return arguments.run(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    targets = parser.add_subparsers(required=True, metavar="TARGET")
    socket = targets.add_parser("socket", help="a real server, over its socket")
    socket.add_argument("--messages", type=int, default=1_000_000, help="how many to send")
    socket.add_argument("--seed", default=None, help="repeats a run; a new one by default")
    socket.add_argument("--peer", type=int, default=None, help="only the peer of this number")
    socket.add_argument("--json", type=Path, default=None, help="write the report there, too")
    socket.set_defaults(run=_socket)
    client = targets.add_parser("client", help="our client, by a hostile server")
    client.add_argument("--runs", type=int, default=300, help="how many servers")
    client.add_argument("--seed", type=int, default=0, help="the number of the first of them")
    client.set_defaults(run=_client)
    for name, help_text in TARGETS.items():
        target = targets.add_parser(name, help=help_text)
        target.add_argument("--seconds", type=int, default=60, help="for how long")
        target.add_argument("--runs", type=int, default=0, help="so many inputs at most")
        target.set_defaults(run=partial(_guided, name))
    return parser


def _guided(target: str, arguments: argparse.Namespace) -> int:
    return guided.run(target, arguments.seconds, arguments.runs)


def _socket(arguments: argparse.Namespace) -> int:
    # Not at the top: what is guided by coverage must be imported under its eyes.
    from fuzzing import socket_fuzz  # noqa: PLC0415

    seed = arguments.seed or secrets.token_hex(4)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        fuzz = socket_fuzz.run(Path(name), arguments.messages, seed, _say, arguments.peer)
        report = uvloop.run(fuzz)
    print(report.text())
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report.as_json(), indent=2) + "\n", encoding="utf-8")
    return 1 if report.problems else 0


def _client(arguments: argparse.Namespace) -> int:
    from fuzzing import client_fuzz  # noqa: PLC0415 - as above

    logging.basicConfig(level=logging.ERROR)
    for seed in range(arguments.seed, arguments.seed + arguments.runs):
        try:
            uvloop.run(client_fuzz.run(str(seed)))
        except Exception:
            print(f"seed {seed}:", file=sys.stderr)
            raise
    print(f"{arguments.runs} hostile servers, nothing found")
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
