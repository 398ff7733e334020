"""`queuesystem requests`: what was accepted, what became of it, and what to do about it."""

import asyncio
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from typing import Any, Final

import msgspec
from msgspec.structs import asdict

from server.commands.common import CommandError, add_settings
from server.commands.operating import (
    EXIT_CODES,
    POLL_SECONDS,
    add_wait,
    ago,
    carry_out,
    count,
    duration,
    journal_of,
    local,
    print_json,
    print_table,
    request_name,
    shown,
    took,
)
from server.journal.buckets import find
from server.journal.entries import DONE
from server.journal.folding import living_sessions
from server.journal.state import RequestState
from server.journal.store import Failed, HistoryRow, Query, Store
from server.journal.tail import find_now

HELP = "list, show, cancel and retry requests"
DESCRIPTION = """\
The requests in the journal, straight from it: with the server running or not. What the journal
says is what is durable, so a request that a handler began a moment ago may still be `waiting`;
after a crash, what was `running` stays so until a server runs it again.
"""
EXAMPLES = f"""\
examples:
  queuesystem requests list --state failed --newer-than 1h
  queuesystem requests list --state waiting --older-than 5m --json
  queuesystem requests show Cu3v2xJ8mM0rZJ6Zb5sJ2l1Q:17
  queuesystem requests cancel Cu3v2xJ8mM0rZJ6Zb5sJ2l1Q:17
  queuesystem requests retry Cu3v2xJ8mM0rZJ6Zb5sJ2l1Q:17

{EXIT_CODES}"""

LIMIT: Final = 50

_COLUMNS: Final = (
    "REQUEST",
    "STATE",
    "METHOD",
    "SUBJECT",
    "ATTEMPT",
    "RESULTS",
    "ACCEPTED",
    "AGE",
    "TOOK",
    "ID",
)


def add(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    listing = actions.add_parser(
        "list",
        help="list requests, newest first",
        description="List the newest requests that match everything that is given.",
        epilog=EXIT_CODES,
        formatter_class=RawDescriptionHelpFormatter,
    )
    listing.add_argument("--session", help="of this session")
    listing.add_argument("--subject", help="of this user")
    listing.add_argument("--method", help="of this method")
    listing.add_argument(
        "--state", help="waiting, running, done, failed (with any error), or an error code"
    )
    listing.add_argument(
        "--older-than", type=duration, metavar="AGE", help="accepted before: 90s, 5m, 2h, 7d"
    )
    listing.add_argument("--newer-than", type=duration, metavar="AGE", help="accepted since")
    listing.add_argument(
        "--limit", type=count, default=LIMIT, help="so many at most (default: %(default)s)"
    )
    listing.add_argument("--json", action="store_true", help="one JSON object per line")
    listing.set_defaults(act=_list)

    showing = actions.add_parser(
        "show",
        help="show all that is known of a request",
        epilog=EXIT_CODES,
        formatter_class=RawDescriptionHelpFormatter,
    )
    _add_request(showing)
    showing.add_argument(
        "--params", action="store_true", help="its params, too, if the journal has them"
    )
    showing.add_argument("--json", action="store_true", help="as a JSON object")
    showing.set_defaults(act=_show)

    cancelling = actions.add_parser(
        "cancel",
        help="cancel an unfinished request, as its client could",
        description="Cancel a request: one that waits never starts, a running one is stopped.",
        epilog=EXIT_CODES,
        formatter_class=RawDescriptionHelpFormatter,
    )
    _add_request(cancelling)
    add_wait(cancelling)
    cancelling.set_defaults(act=_cancel)

    retrying = actions.add_parser(
        "retry",
        help="run a request once more that ended with an error",
        description="Run a failed request again: as a new request with the same method, params, "
        "subject and scope, in a session of its own. Its results are counted, not kept, and its "
        "end is in the list; the client's session is left as it is. Params are kept of the last "
        "10000 requests that ended with an error, of each not more than 16 KiB.",
        epilog=EXIT_CODES,
        formatter_class=RawDescriptionHelpFormatter,
    )
    _add_request(retrying)
    add_wait(retrying)
    retrying.set_defaults(act=_retry)

    for action in (listing, showing, cancelling, retrying):
        add_settings(action, {"journal", "history_ttl"})


def _add_request(parser: ArgumentParser) -> None:
    parser.add_argument(
        "request",
        type=request_name,
        metavar="SESSION:N",
        help="the request, as `list` and the server's log name it",
    )


def run(arguments: Namespace) -> int:
    """Do what was asked; return the exit code."""
    return asyncio.run(arguments.act(arguments))


async def _list(arguments: Namespace) -> int:
    now = time.time()
    query = Query(
        session=arguments.session,
        subject=arguments.subject,
        method=arguments.method,
        state=arguments.state,
        accepted_before=None if arguments.older_than is None else now - arguments.older_than,
        accepted_after=None if arguments.newer_than is None else now - arguments.newer_than,
        limit=arguments.limit,
    )
    async with journal_of(arguments) as store:
        rows = await find_now(store, query)
    if arguments.json:
        print_json([_described(row) for row in rows])
        return 0
    print_table(
        _COLUMNS,
        [
            [
                shown(f"{row.session}:{row.n}"),
                shown(row.state),
                shown(row.method),
                shown(row.subject),
                shown(row.attempt),
                shown(row.results),
                local(row.accepted_at),
                ago(row.accepted_at),
                took(row.started_at, row.finished_at),
                shown(row.id),
            ]
            for row in rows
        ],
    )
    return 0


def _described(row: HistoryRow) -> dict[str, Any]:
    return {"request": f"{row.session}:{row.n}", **asdict(row)}


async def _show(arguments: Namespace) -> int:
    session, n = arguments.request
    async with journal_of(arguments) as store:
        row = await need_request(store, session, n)
        known = await living_sessions(store.log_reader)
        failed = await store.history.failed(session, n)
    of_session = known.get(session)
    live = None if of_session is None else of_session.live.get(n)
    described = _described(row)
    described |= _of_live(live, with_params=arguments.params)
    if failed is not None and (live is None or live.outcome is not None):
        described |= _of_failed(failed, with_params=arguments.params)
    if arguments.json:
        print_json([described])
        return 0
    width = max(map(len, described))
    for name, value in described.items():
        text = f"{local(value)} ({ago(value)})" if name.endswith("_at") else _plain(value)
        print(f"{name:{width}}  {text}")
    print(f"{'waited':{width}}  {took(row.accepted_at, row.started_at)}")
    print(f"{'took':{width}}  {took(row.started_at, row.finished_at)}")
    return 0


def _plain(value: object) -> str:
    if isinstance(value, dict | list | msgspec.Raw):
        return shown(msgspec.json.encode(value).decode())
    return shown(value)


async def need_request(store: Store, session: str, n: int) -> HistoryRow:
    """Return what is known of a request. Raises CommandError when nothing is."""
    rows = await find_now(store, Query(session=session, n=n, limit=1))
    if not rows:
        raise CommandError(
            f"there is no request {shown(session)}:{n} in the journal (or it is too old)",
            exit_code=1,
        )
    return rows[0]


def _of_live(live: RequestState | None, *, with_params: bool) -> dict[str, Any]:
    """Return what only a live request's log says: it is unfinished, or not acknowledged."""
    if live is None:
        gone: dict[str, Any] = {"acknowledged": True, "params_bytes": None, "error": None}
        return gone | {"params": None} if with_params else gone
    has_params = live.outcome is None
    said: dict[str, Any] = {
        "acknowledged": False,
        "timeout": live.timeout,
        "scope": live.scope,
        "params_bytes": len(live.params) if has_params else None,
        "error": msgspec.json.decode(live.error) if live.error else None,
    }
    if with_params:
        said["params"] = live.params if has_params else None
    return said


def _of_failed(failed: Failed, *, with_params: bool) -> dict[str, Any]:
    """Return what is kept of a request that ended with an error."""
    said: dict[str, Any] = {
        "timeout": failed.timeout,
        "scope": failed.scope,
        "params_bytes": len(failed.params.encode()),
    }
    if failed.error:
        said["error"] = msgspec.json.decode(failed.error)
    if with_params:
        said["params"] = msgspec.Raw(failed.params.encode())
    return said


async def _cancel(arguments: Namespace) -> int:
    session, n = arguments.request
    async with journal_of(arguments) as store:
        row = await need_request(store, session, n)
        if row.state not in {"waiting", "running"}:
            raise CommandError(f"it has ended already: {shown(row.state)}", exit_code=1)
        return await carry_out(store, "cancel", f"{session}:{n}", arguments.wait)


async def _retry(arguments: Namespace) -> int:
    session, n = arguments.request
    async with journal_of(arguments) as store:
        row = await need_request(store, session, n)
        if row.state in {"waiting", "running"}:
            raise CommandError(f"it has not ended: it is {row.state}", exit_code=1)
        if row.state == DONE:
            raise CommandError(
                "it is done: only what ended with an error can run again", exit_code=1
            )
        if await _kept(store, row, arguments.wait) is None:
            raise CommandError(
                "its params are not kept: they are too long, too old, or a crash hit the server "
                "right after its end",
                exit_code=1,
            )
        return await carry_out(store, "retry", f"{session}:{n}", arguments.wait)


async def _kept(store: Store, row: HistoryRow, wait_seconds: float) -> Failed | None:
    """Return what is kept of a failed request; a running server needs a moment to keep it."""
    deadline = time.monotonic() + wait_seconds
    query = Query(session=row.session, n=row.n, state=row.state, limit=1)
    while True:
        in_history = await find(store.history, query)  # what is kept comes no later
        failed = await store.history.failed(row.session, row.n)
        if failed is not None or in_history or time.monotonic() >= deadline:
            return failed
        await asyncio.sleep(POLL_SECONDS)
