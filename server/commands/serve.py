"""`queuesystem serve`: run the server until it is told to stop."""

from argparse import ArgumentParser, Namespace

from server import logs
from server.commands.common import add_settings, need_secret, settings_of

HELP = "run the server"
DESCRIPTION = """\
Run the server until Ctrl-C or SIGTERM. Then running requests get --drain-timeout to finish; what
is unfinished stays in the journal and runs after the next start. With --replace the server starts
beside the one that runs, which then ends: no connection is refused in between.
"""
EXAMPLES = """\
examples:
  queuesystem serve
  queuesystem serve --port 9000 --journal sqlite:////var/lib/queuesystem/journal.db
  queuesystem serve --replace 4711
  queuesystem serve --handlers myproject.methods:handlers --log-format json
"""


def add(parser: ArgumentParser) -> None:
    """Declare the arguments: every setting."""
    add_settings(parser)


def run(arguments: Namespace) -> int:
    """Serve; return 0 after an orderly stop, 1 after a failure."""
    settings = settings_of(arguments)
    if not settings.jwt_public_key and settings.jwt_jwks_url is None:
        need_secret(settings, "nobody could authenticate")
    logs.configure(settings.log_format, settings.log_level)

    from server import app  # noqa: PLC0415 - no other command needs it

    code = app.run(settings)
    logs.close()
    return code
