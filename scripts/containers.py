"""Build the container image and run it for real: with a Docker daemon of its own, as root.

    sudo .venv/bin/python scripts/containers.py

There is no registry involved: the base image is made by debootstrap, MongoDB's place is taken by
SecantusDB, that of Prometheus by Debian's. `--help` says what is verified and needed.
"""

import argparse
import shutil
import signal
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import mkdtemp
from typing import NoReturn

from scripts.containing.alone import check_alone
from scripts.containing.daemon import Daemon
from scripts.containing.image import ROOT, build, check_image, make_base
from scripts.containing.report import CannotRun, Failed, say, verified
from scripts.containing.stack import check_stack
from scripts.containing.tools import find_tools

IMAGE = f"queuesystem:{version('queuesystem')}"  # as in docker-compose.yml

TOTAL_SECONDS = 900
"""More than it takes on a slow machine: about two minutes, half of it debootstrap and downloads."""

DESCRIPTION = """\
Build the image, run it, kill it, stop it, and check what clients see; then the same with compose.

Alone:    the image has nothing of its build, adds little to its base, runs as a user that is not
          root on a read-only file system without capabilities, becomes healthy; a load of 20
          sessions gets every result exactly once through `docker kill` and `docker stop`; after
          the latter the exit code is 0, and clients have seen close code 1012.
Compose:  the same for the server of docker-compose.yml; the database asks for a password and gives
          the server one database, and is published nowhere, the server on 127.0.0.1 only;
          Prometheus scrapes the server.

Needs root, Linux and apt-get (it installs docker.io, debootstrap and docker-compose unless they
are there), and whatever way pip has to PyPI. Takes about two minutes. All else that it makes is
gone at the end. What it cannot show, for want of their images: MongoDB itself, Grafana, and the
Prometheus of prom/prometheus.
"""
EPILOG = """\
exit codes:
  0    all verified
  1    something is not as it must be
  2    wrong usage, or this machine cannot run it; says why
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--base",
        metavar="TAR",
        type=Path,
        help="keep what debootstrap made in this file, or take it from there",
    )
    parser.add_argument(
        "--compose", metavar="PROGRAM", help="the Docker Compose to use instead of the installed"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)  # to clean up, as after Ctrl-C
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(TOTAL_SECONDS)
    directory = Path(mkdtemp(prefix="containers-"))
    try:
        tools = find_tools(options.compose)
        daemon = Daemon(directory, tools)
    except CannotRun as error:
        shutil.rmtree(directory)
        return _cannot_run(error)
    try:
        daemon.start()
        base = make_base(daemon, tools, options.base)
        build(daemon, base, IMAGE, ROOT)
        check_image(daemon, base, IMAGE)
        check_alone(daemon, IMAGE)
        check_stack(daemon, base, IMAGE)
    except CannotRun as error:
        return _cannot_run(error)
    except Failed as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    finally:
        signal.alarm(0)
        say("cleaning up")
        daemon.stop()
    verified("all of it")
    return 0


def _cannot_run(error: CannotRun) -> int:
    print(f"scripts/containers.py cannot run here: {error}", file=sys.stderr)
    return 2


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _too_long(_signal: int, _frame: object) -> NoReturn:
    raise Failed(f"not done within {TOTAL_SECONDS} s")


if __name__ == "__main__":
    sys.exit(main())
