"""Put load on a queueSystem server, measure it, and check order, loss and repeats.

    .venv/bin/python scripts/loadtest.py
    .venv/bin/python scripts/loadtest.py --rate 2000 --json result.json --plot result.svg

`--help` explains the options, the two kinds of load and the exit codes.
"""

import asyncio
import json
import sys

from loadtesting import plot, report
from loadtesting.coordinator import Coordinator
from loadtesting.options import Options, parse
from loadtesting.progress import Progress
from loadtesting.run import UNUSABLE, Run
from loadtesting.tokens import Tokens

from server.commands.common import CommandError
from server.settings import Settings, SettingsError, read_settings

TOKEN_SPARE_SECONDS = 3600.0
"""Tokens are valid for the longest the run may take, and this longer."""


def main() -> int:
    """Run as the command line says; return the exit code."""
    options = parse()
    try:
        tokens = make_tokens(options)
    except (CommandError, SettingsError) as error:
        print(f"loadtest: {error}", file=sys.stderr)
        return UNUSABLE
    progress = Progress(sys.stderr, options.connections)
    run = asyncio.run(Coordinator(options, tokens, progress).run())
    if run.measured:
        show(run)
    elif run.stopped_by is not None:
        print("loadtest: stopped before anything was measured", file=sys.stderr)
    if run.totals.fatal is not None:
        print(f"loadtest: {options.url}: {run.totals.fatal}", file=sys.stderr)
    return run.exit_code


def make_tokens(options: Options) -> Tokens:
    """Have the tokens ready. Raises CommandError and SettingsError when there can be none."""
    if options.token is not None:
        return Tokens(options.token, Settings(), 0)
    seconds = options.ramp_up + options.warm_up + options.duration + options.drain
    settings = read_settings({"jwt_secret": options.secret})
    tokens = Tokens(None, settings, seconds + TOKEN_SPARE_SECONDS)
    tokens.of(0)
    return tokens


def show(run: Run) -> None:
    """Print the report, and write the files that were asked for."""
    options = run.options
    print(report.text(run))
    if options.json is not None:
        value = report.as_json(run)
        options.json.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    if options.plot is not None:
        options.plot.write_text(plot.draw(run, html=options.plot.suffix == ".html"), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
