"""Every event that this server logs: its level, and what it means to who reads it.

    .venv/bin/python -m server.log_events    prints the table as Markdown

`critical` and `error` are for somebody to act upon, `warning` is to be looked at in working
hours, `info` tells what happened. What a client does wrong is never above info, or a warning
where it looks like an attack.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

LINES_MAX: Final = 20
"""So many lines of an event (with the same code, status or method) pass in an interval."""
MANY_LINES_MAX: Final = 1000
"""The same, of what happens to good clients all the time."""


class Event(NamedTuple):
    """`levels` are those it is logged with; `lines` of it pass in an interval (log_limits.py)."""

    levels: str
    meaning: str
    lines: int = LINES_MAX


EVENTS: Final[Mapping[str, Event]] = {
    # The process
    "serving": Event("info", "It listens; version, journal, limits and `epoch` of this process."),
    "recovered": Event("info", "What older processes left is taken over: sessions, unfinished."),
    "draining": Event("info", "A signal came: running requests have so many seconds to end."),
    "stopped": Event("info", "The end: uptime, requests ended since the start, sessions kept."),
    "start_failed": Event("critical", "It did not start: `error` says what to change."),
    "part_failed": Event(
        "critical",
        "A part of the server failed, so all of it stops. Report it, unless `error` "
        "names the disk or the database.",
    ),
    "journal_lost": Event(
        "critical",
        "Another server has taken over this journal, so this one stops; that one runs "
        "what was unfinished. Run one server on a journal.",
    ),
    "handlers_do_not_stop": Event(
        "error",
        "Handlers of `methods` went on though they were cancelled, and were cut off: "
        "correct them; they run again.",
    ),
    "stopped_without_last_commit": Event(
        "error", "The journal did not answer at the end: what was not in it runs again."
    ),
    "stopped_at_once": Event("warning", "A second signal came while it drained."),
    "open_files_capped": Event(
        "warning", "The system allows fewer open files than `max_connections` needs: raise them."
    ),
    "listen_backlog_capped": Event(
        "warning", "The system's `somaxconn` is smaller than wanted: bursts of connections wait."
    ),
    "memory_high": Event(
        "error",
        "The process has more memory than `memory_high_water_bytes`: no request is accepted until "
        "it has less. See which sessions hold it, or allow more.",
    ),
    "memory_normal": Event("warning", "It has less again, and accepts requests."),
    "replacing": Event("info", "It listens, and tells the old server, `pid`, to end."),
    "connections_not_steered": Event(
        "warning",
        "The system cannot give all new connections to the server that replaces another: some "
        "may be cut off once.",
    ),
    "systemd_not_told": Event("warning", "systemd could not be told how it is."),
    "jwt_secret_guessable": Event("warning", "The secret repeats itself: make a random one."),
    # The journal
    "journal_unavailable": Event(
        "error",
        "The journal cannot be written: nothing new is accepted until it can. Look at "
        "the disk or the database.",
    ),
    "journal_available_again": Event("info", "It can be written again, nothing was lost."),
    "journal_keeper_waits": Event(
        "warning", "The request log or a checkpoint could not be written, and is tried again."
    ),
    "recovery_waits": Event(
        "warning", "An older log cannot be read now: who resumes its sessions waits."
    ),
    "committed_failed": Event("error", "A bug of ours in one session; others go on. Report it."),
    # Operators
    "operator_command": Event("info", "What an operator asked for: `status` and `outcome`."),
    "operator_waits": Event("warning", "Commands of operators cannot be read or settled now."),
    "operator_failed": Event("error", "A bug of ours in a command of an operator. Report it."),
    # Connections
    "connection_opened": Event(
        "info",
        "A client said hello: ties `connection` to `session`, `subject`, `address`; "
        "`resumed` or not, in which `epoch`.",
        MANY_LINES_MAX,
    ),
    "connection_lost": Event(
        "info",
        "A connection that had a session is gone; `code` 1006: without a closing handshake.",
        MANY_LINES_MAX,
    ),
    "refused": Event("info", "No session for this connection: `code` and `reason` as it was told."),
    "closing": Event("info", "The server closes a connection: `code` and `reason`."),
    "http_refused": Event("info", "An HTTP request or handshake was answered with `status`."),
    "http_failed": Event("error", "A bug of ours in an HTTP answer. Report it."),
    "connection_failed": Event("error", "A bug of ours ended one connection. Report it."),
    "connections_cut_off": Event(
        "warning",
        "So many connections came on top of all that may be open: an attack, or "
        "`max_connections` is too low.",
    ),
    "session_expired": Event("info", "Nobody resumed the session within `session_ttl`."),
    # Who may
    "login_refused": Event("info", "A wrong name or password at POST /token."),
    "login_throttled": Event("warning", "So many were wrong that logins are not looked at now."),
    "login_failed": Event("warning", "The users could not be read: look at the journal."),
    "password_hash_unusable": Event("error", "A stored password is damaged: set it anew."),
    "rehash_failed": Event("warning", "A password could not be stored with today's parameters."),
    "jwks_fetch_failed": Event(
        "warning", "The key set could not be fetched: `keys_kept` says whether old keys serve on."
    ),
    # Requests
    "request_accepted": Event("debug", "The request is durable, and waits to be run."),
    "request_started": Event("debug", "Its handler begins."),
    "request_replayed": Event(
        "info",
        "Its handler begins once more, after a crash or a lost process: see `attempt`.",
        MANY_LINES_MAX,
    ),
    "request_ended": Event("debug", "Its end is durable: `outcome`, `results`, `seconds`."),
    "request_timed_out": Event(
        "info, warning", "Its handler did not end in time; info when the client set that time."
    ),
    "request_interrupted": Event(
        "warning", "A crash hit it, and its method must not run twice (`replay`)."
    ),
    "request_given_up": Event(
        "error",
        "It was running in so many crashes that it may be their cause: look at its method.",
    ),
    "request_unrunnable": Event(
        "warning", "It was accepted by an older program: the method is gone or has other params."
    ),
    "handler_failed": Event("error", "A handler raised: `exception` is its own text."),
    "result_not_json": Event("warning", "A handler returned what JSON cannot hold: correct it."),
    "error_details_not_json": Event("warning", "The details of a RequestError are no JSON."),
    "process_died": Event("warning", "The process that ran it died; it runs again in another."),
    "worker_failed": Event("critical", "A bug of ours in one session. Report it."),
    "thread_not_started": Event("warning", "The system gives no further thread."),
    "process_not_started": Event("warning", "The system gives no further process."),
    "thread_failed": Event("error", "A thread that no handler waits for raised."),
    "exception_ignored": Event("error", "An exception where none can be raised: `exception`."),
    # The log itself
    "suppressed": Event(
        "as the lines", "So many lines `of` an event or logger were left out in these `seconds`."
    ),
    "log_lines_dropped": Event("warning", "So many lines were lost: nobody read the log."),
    "log_line_failed": Event("error", "A line of `logger` could not be made: its format is wrong."),
}


def render() -> str:
    """Return the table as Markdown."""
    rows = [f"| `{name}` | {one.levels} | {one.meaning} |" for name, one in EVENTS.items()]
    return "\n".join(["| event | level | meaning |", "| --- | --- | --- |", *rows]) + "\n"


if __name__ == "__main__":
    print(render(), end="")  # noqa: T201 - what it is for
