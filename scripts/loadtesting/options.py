"""The command line, checked: every value has its unit and its bounds here."""

import argparse
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from protocol.codec import encode
from scripts.arguments import count, writable

from .websocket import PORTS

SECONDS_MAX: Final = 86_400.0
CONNECTIONS_MAX: Final = 100_000
WINDOW_MAX: Final = 10_000
RATE_MAX: Final = 1_000_000.0
PROCESSES_MAX: Final = 256
PLOT_SUFFIXES: Final = (".svg", ".html")

DESCRIPTION: Final = """\
Put load on a queueSystem server, measure it, and check every reply: order, loss, repeats.

Without --rate each connection keeps --window requests unfinished (closed loop): how fast is it?
With --rate requests are due at fixed times, whatever the server does (open loop): how long does a
request take at that load? Latencies then count from the time a request was due, so that a stall
of the server is not hidden. Requests that have no room in the window wait; what does not fit into
the bounded backlog either is counted as not sent.

A lost connection or a restarted server is no error: sessions are resumed, and nothing may be
missing then. The run is: connect (within --ramp-up), --warm-up, --duration (what is measured),
and the last replies (--drain).
"""
EPILOG: Final = """\
exit codes:
  0    every request was done, in order, none lost and none repeated
  1    a violation (also when the run was cut short), an error answered by the server, a request
       that did not end or was not sent
  2    wrong usage, no connection, not authenticated
  130  stopped with Ctrl-C (143: SIGTERM); the report shows what was measured until then

examples:
  .venv/bin/python scripts/loadtest.py --connections 50 --window 16
  .venv/bin/python scripts/loadtest.py --rate 2000 --json result.json --plot result.svg
  .venv/bin/python scripts/loadtest.py --url wss://queue.example/ws --ca ca.pem --token "$TOKEN" \\
      --method words --params @params.json

In the JSON all times are in seconds; scripts/loadtesting/report.py describes its fields.
"""


@dataclass(frozen=True)
class Options:
    """What to do; times in seconds, `rate` in requests per second of all connections."""

    url: str
    ca: Path | None
    token: str | None = field(repr=False)
    secret: str | None = field(repr=False)
    connections: int
    window: int
    rate: float | None
    processes: int
    ramp_up: float
    warm_up: float
    duration: float
    drain: float
    method: str
    params: bytes
    seed: int
    json: Path | None
    plot: Path | None


def parse() -> Options:
    """Read the command line; exits with code 2 when it is wrong."""
    parser = _parser()
    values = parser.parse_args()
    if values.processes > values.connections:
        parser.error("--processes: there are not so many connections")
    if values.ca is not None and not values.url.startswith("wss:"):
        parser.error("--ca is for wss:// URLs")
    return Options(**vars(values))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    where = parser.add_argument_group("where, and as whom")
    where.add_argument(
        "--url",
        type=_url,
        default="ws://127.0.0.1:8765/ws",
        help="the server's WebSocket, ws:// or wss:// (default: %(default)s)",
    )
    where.add_argument(
        "--ca",
        type=_certificates,
        metavar="FILE",
        help="for wss: trust the certificates in FILE (PEM) and no others",
    )
    who = where.add_mutually_exclusive_group()
    who.add_argument("--token", help="token (JWT) of all connections")
    who.add_argument(
        "--secret",
        help="secret to sign tokens with, for load-0, load-1, ... (default: "
        "QUEUESYSTEM_JWT_SECRET in the environment or .env, where others cannot read it)",
    )
    load = parser.add_argument_group("how much")
    load.add_argument(
        "--connections",
        type=count(CONNECTIONS_MAX),
        default=50,
        metavar="N",
        help="connections, each with a session of its own (default: %(default)s)",
    )
    load.add_argument(
        "--window",
        type=count(WINDOW_MAX),
        default=16,
        metavar="N",
        help="unfinished requests of a connection (default: %(default)s)",
    )
    load.add_argument(
        "--rate",
        type=_number(RATE_MAX),
        metavar="R",
        help="requests per second of all connections, at fixed times (default: closed loop)",
    )
    load.add_argument(
        "--processes",
        type=count(PROCESSES_MAX),
        default=1,
        metavar="N",
        help="split connections and rate over processes (default: %(default)s)",
    )
    time = parser.add_argument_group("how long (seconds)")
    for name, default, text in (
        ("ramp-up", 0.0, "open the connections one after the other over this time"),
        ("warm-up", 1.0, "run for this time before measuring"),
        ("duration", 10.0, "measure for this time"),
        ("drain", 10.0, "wait this long until what waits is sent, and again for the last replies"),
    ):
        time.add_argument(
            f"--{name}",
            type=_number(SECONDS_MAX, zero=default == 0 or name == "warm-up"),
            default=default,
            metavar="S",
            help=f"{text} (default: {default:g})",
        )
    what = parser.add_argument_group("what")
    what.add_argument("--method", default="echo", help="method to call (default: %(default)s)")
    what.add_argument(
        "--params",
        type=_params,
        default='{"text":"hello"}',
        metavar="JSON",
        help="its parameters, or @FILE (default: %(default)s)",
    )
    what.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of the random times to wait before connecting again (default: %(default)s)",
    )
    out = parser.add_argument_group("output")
    out.add_argument("--json", type=writable, metavar="FILE", help="write the results to FILE")
    out.add_argument(
        "--plot", type=_plot, metavar="FILE", help="draw the results to FILE (.svg or .html)"
    )
    return parser


def _url(text: str) -> str:
    try:
        url = urlsplit(text)
        port = url.port or PORTS.get(url.scheme)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None
    if url.scheme not in PORTS or not url.hostname or port is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no URL such as ws://127.0.0.1:8765/ws")
    return text


def _number(most: float, *, zero: bool = False) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value <= most or (value == 0 and not zero):
            least = "from 0" if zero else "above 0,"
            raise argparse.ArgumentTypeError(f"{text!r} is no number {least} up to {most:g}")
        return value

    return parse


def _params(text: str) -> bytes:
    """Return the params as one line of JSON."""
    try:
        data = Path(text[1:]).read_bytes() if text.startswith("@") else text.encode()
        return encode(msgspec.json.decode(data, type=dict[str, Any]))
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(f"{text[:80]!r}: {error}") from None


def _certificates(text: str) -> Path:
    try:
        ssl.create_default_context(cafile=text)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None
    return Path(text)


def _plot(text: str) -> Path:
    if not text.endswith(PLOT_SUFFIXES):
        raise argparse.ArgumentTypeError(f"{text!r} does not end with .svg or .html")
    return writable(text)
