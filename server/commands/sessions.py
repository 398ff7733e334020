"""`queuesystem sessions`: whose sessions there are, and what each has left to do."""

import asyncio
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from typing import Any, Final

from server.commands.common import CommandError, add_settings
from server.commands.operating import (
    EXIT_CODES,
    add_wait,
    ago,
    carry_out,
    journal_of,
    print_json,
    print_table,
    shown,
)
from server.journal.folding import living_sessions
from server.journal.state import SessionState

HELP = "list and close sessions"
DESCRIPTION = """\
The sessions that are not over, straight from the journal: with the server running or not. Who is
connected only the server knows, not the journal.
"""
EXAMPLES = f"""\
examples:
  queuesystem sessions list --subject alice
  queuesystem sessions list --idle --json
  queuesystem sessions close Cu3v2xJ8mM0rZJ6Zb5sJ2l1Q --cancel

{EXIT_CODES}"""

_COLUMNS: Final = (
    "SESSION",
    "SUBJECT",
    "STATE",
    "UNFINISHED",
    "UNACKNOWLEDGED",
    "LAST-N",
    "OLDEST",
)


def add(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = actions.add_parser(
        "list",
        help="list sessions, those with the most unfinished requests first",
        epilog=EXIT_CODES,
        formatter_class=RawDescriptionHelpFormatter,
    )
    listing.add_argument("--subject", help="of this user")
    listing.add_argument("--idle", action="store_true", help="with nothing unfinished")
    listing.add_argument("--json", action="store_true", help="one JSON object per line")
    listing.set_defaults(act=_list)

    closing = actions.add_parser(
        "close",
        help="end a session: its client is told not to come back",
        description="End a session, as its client's `bye` does: what was accepted still runs, its "
        "results are not kept, and its connection is closed with 1000.",
        epilog=EXIT_CODES,
        formatter_class=RawDescriptionHelpFormatter,
    )
    closing.add_argument("session", metavar="SESSION", help="the session, as in the list")
    closing.add_argument("--cancel", action="store_true", help="and cancel its unfinished requests")
    add_wait(closing)
    closing.set_defaults(act=_close)

    for action in (listing, closing):
        add_settings(action, {"journal", "history_ttl"})


def run(arguments: Namespace) -> int:
    """Do what was asked; return the exit code."""
    return asyncio.run(arguments.act(arguments))


async def _list(arguments: Namespace) -> int:
    async with journal_of(arguments) as store:
        known = await living_sessions(store.log_reader)
    rows = [
        _described(session)
        for session in known.values()
        if arguments.subject in (None, session.subject)
    ]
    if arguments.idle:
        rows = [row for row in rows if not row["unfinished"]]
    rows.sort(key=lambda row: (-row["unfinished"], row["session"]))
    if arguments.json:
        print_json(rows)
        return 0
    print_table(
        _COLUMNS,
        [
            [
                *(shown(value) for value in list(row.values())[:-1]),
                ago(row["oldest_unfinished_at"]),
            ]
            for row in rows
        ],
    )
    return 0


def _described(session: SessionState) -> dict[str, Any]:
    unfinished = [r for r in session.live.values() if r.outcome is None]
    return {
        "session": session.id,
        "subject": session.subject,
        "state": "closed" if session.closed else "open",
        "unfinished": len(unfinished),
        "unacknowledged": len(session.live) - len(unfinished),
        "last_n": session.last_n,
        "oldest_unfinished_at": min((r.time for r in unfinished), default=None),
    }


async def _close(arguments: Namespace) -> int:
    kind = "close_and_cancel" if arguments.cancel else "close"
    async with journal_of(arguments) as store:
        known = await living_sessions(store.log_reader)
        if arguments.session not in known:
            name = shown(arguments.session)
            raise CommandError(f"there is no session {name}, or it is over", exit_code=1)
        return await carry_out(store, kind, arguments.session, arguments.wait)
