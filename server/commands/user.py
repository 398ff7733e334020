"""`queuesystem user`: who may fetch a token with a name and a password."""

import asyncio
import getpass
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from server.commands.common import CommandError, add_settings, settings_of
from server.journal.log import JournalError
from server.journal.opening import open_store
from server.journal.store import Users

HELP = "add, remove or list users"
DESCRIPTION = """\
Manage the users of POST /token: a user sends name and password (HTTP Basic) and gets a token.
They are kept in the journal's store; changes hold at once, also while a server runs.
"""
EXAMPLES = """\
examples:
  queuesystem user add alice
  queuesystem user add backup --scope "read write" --password-stdin < password.txt
  queuesystem user list
  queuesystem user remove alice
"""


def add(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    adding = actions.add_parser("add", help="add a user, or give one a new password and scope")
    adding.add_argument("name", metavar="NAME", help="the name to log in with")
    adding.add_argument("--scope", default="", help='scopes of the tokens, as in "read write"')
    adding.add_argument(
        "--password-stdin",
        action="store_true",
        help="read the password from standard input instead of asking for it twice",
    )
    adding.set_defaults(act=_add)

    removing = actions.add_parser("remove", help="remove a user; tokens given out stay valid")
    removing.add_argument("name", metavar="NAME", help="whom to remove")
    removing.set_defaults(act=_remove)

    listing = actions.add_parser("list", help="print name, scope and date of every user")
    listing.set_defaults(act=_list)

    for action in (adding, removing, listing):
        add_settings(action, {"journal"})


def run(arguments: Namespace) -> int:
    """Do what was asked; return 0, or 1 when it could not be done."""
    return asyncio.run(arguments.act(arguments))


async def _add(arguments: Namespace) -> int:
    from server.users import Accounts  # noqa: PLC0415 - loading Argon2 takes time

    password = _read_password(from_stdin=arguments.password_stdin)
    async with _users(arguments) as users:
        known = await users.get(arguments.name) is not None
        await Accounts(users).add(arguments.name, password, arguments.scope, time.time())
    print(f"{'changed' if known else 'added'} {arguments.name}")
    return 0


async def _remove(arguments: Namespace) -> int:
    async with _users(arguments) as users:
        if not await users.remove(arguments.name):
            raise CommandError(f"there is no user {arguments.name}", exit_code=1)
    print(f"removed {arguments.name}")
    return 0


async def _list(arguments: Namespace) -> int:
    async with _users(arguments) as users:
        for user in await users.list():
            added = datetime.fromtimestamp(user.created_at, UTC)
            print(user.name, user.scope or "-", added.isoformat(timespec="seconds"), sep="\t")
    return 0


@asynccontextmanager
async def _users(arguments: Namespace) -> AsyncGenerator[Users]:
    """Open the users of the configured store, without its log: a server may have that."""
    try:
        store = await open_store(settings_of(arguments).journal, log=False)
        try:
            yield store.users
        finally:
            await store.close()
    except (JournalError, ValueError) as error:
        raise CommandError(str(error), exit_code=1) from error


def _read_password(*, from_stdin: bool) -> str:
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = getpass.getpass("Password: ")
        if password != getpass.getpass("The same again: "):
            raise CommandError("the two passwords differ", exit_code=1)
    if not password:
        raise CommandError("the password is empty", exit_code=1)
    return password
