"""`queuesystem token`: print a token that the server accepts."""

from argparse import ArgumentParser, Namespace

from server.commands.common import (
    CommandError,
    add_settings,
    make_token,
    seconds,
    settings_of,
)
from server.scopes import are_scopes

HELP = "print a token for a client"
DESCRIPTION = """\
Print a token (JWT, HS256) signed with the configured secret, and nothing else. Every server with
the same secret accepts it until it expires.
"""
EXAMPLES = """\
examples:
  queuesystem token --subject alice
  queuesystem token --subject backup --ttl 60 --scope "read write"
  QUEUESYSTEM_TOKEN=$(queuesystem token --subject alice) queuesystem send echo --param text=hi
"""


def add(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--subject", required=True, help="who the token is for")
    parser.add_argument(
        "--ttl", type=seconds, metavar="SECONDS", help="its life (default: --token-ttl)"
    )
    parser.add_argument("--scope", help='the scopes it carries, as in "read write"')
    add_settings(parser, {"jwt_secret", "jwt_audience", "jwt_issuer", "token_ttl"})


def run(arguments: Namespace) -> int:
    """Print the token; return 0."""
    settings = settings_of(arguments)
    if not arguments.subject or not arguments.subject.isprintable():
        raise CommandError("--subject must be printable text, at least one character", exit_code=2)
    if arguments.scope and not are_scopes(arguments.scope.split()):
        raise CommandError('--scope must be scopes as in "read write"', exit_code=2)
    print(make_token(settings, arguments.subject, arguments.scope, arguments.ttl))
    return 0
