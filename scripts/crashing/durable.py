"""What the journal says while no server runs on it: read from its file or database, folded here.

Written from what server/journal/entries.py says of the format and of nothing else: it shares no
code with the server, so that what the server forgets when it reads its own journal is seen. What
does not fit (an end of what was never accepted) is passed over: the checker tells what is missing.
"""

import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import msgspec
from pymongo import DESCENDING, MongoClient

OPENED: Final = 1
ACCEPTED: Final = 3
STARTED: Final = 4
FINISHED: Final = 6
ACKED: Final = 7
CLOSED: Final = 8
SNAPSHOT: Final = 9
CLAIMED: Final = 10
STOPPED: Final = 11

CHECKSUM_BYTES: Final = 4
"""What a commit may end with behind its entries."""
_SEQ_BITS: Final = 40


class OwnerLog(NamedTuple):
    """One owner's log: its commits in order, those that a checkpoint superseded left out."""

    owner: str
    commits: list[bytes]


@dataclass
class Live:
    """A request that is unfinished (no outcome), or ended and not acknowledged."""

    id: str
    attempt: int
    outcome: str | None


@dataclass
class Durable:
    """What is durable of one session."""

    last_n: int = 0
    closed: bool = False
    live: dict[int, Live] = field(default_factory=dict[int, Live])

    @property
    def over(self) -> bool:
        """Tell whether nothing is left of it."""
        return self.closed and not self.live

    @property
    def unfinished(self) -> int:
        """How many requests have not ended."""
        return sum(request.outcome is None for request in self.live.values())

    def record(self) -> dict[str, Any]:
        """Return it as history has it."""
        live = [[n, r.id, r.attempt, r.outcome] for n, r in sorted(self.live.items())]
        return {"last_n": self.last_n, "closed": self.closed, "live": live}


class Journal(NamedTuple):
    """All of a journal: the sessions by id, and whose logs they are in."""

    sessions: dict[str, Durable]
    owners: list[str]


def read(url: str) -> Journal:
    """Read the journal at `url`, of which nothing is changed. Raises what is wrong with it."""
    claimed: set[str] = set()
    if url.startswith("sqlite"):
        return fold(_sqlite(Path(url.removeprefix("sqlite:///")), claimed), claimed)
    return fold(_mongodb(url, claimed), claimed)


def fold(logs: Iterable[OwnerLog], claimed: set[str]) -> Journal:
    """Say what `logs` (the newest owner first) leave; a log that another claimed says nothing.

    Who is claimed is added to `claimed`, so that its log need not be given at all.
    """
    said: dict[str, dict[str, Durable]] = {}
    for log in logs:
        if log.owner not in claimed:
            said[log.owner], claims = _fold(log)
            claimed |= claims
    sessions: dict[str, Durable] = {}
    for theirs in reversed(said.values()):
        sessions |= theirs
    living = {name: one for name, one in sessions.items() if not one.over}
    return Journal(living, list(said))


def _fold(log: OwnerLog) -> tuple[dict[str, Durable], set[str]]:
    sessions: dict[str, Durable] = {}
    claimed: set[str] = set()
    for commit in log.commits:
        for kind, *rest in _entries(commit):
            if kind == STOPPED:
                continue
            name = rest.pop(0)
            if kind == CLAIMED:
                claimed.add(name)
            elif kind == OPENED:
                sessions[name] = Durable()
            elif kind == SNAPSHOT:
                sessions[name] = _snapshot(rest)
            elif (session := sessions.get(name)) is not None:
                # Else it was said before the snapshot that the log begins with.
                _apply(session, kind, rest)
    return sessions, claimed


def _entries(commit: bytes) -> list[list[Any]]:
    try:
        return msgspec.msgpack.decode(commit)
    except msgspec.DecodeError:
        return msgspec.msgpack.decode(commit[:-CHECKSUM_BYTES])


def _snapshot(rest: list[Any]) -> Durable:
    _subject, _scope, last_n, closed, requests, *_recent = rest
    live: dict[int, Live] = {}
    for request in requests:
        n, name, attempt, outcome = request[0], request[1], request[9], request[13]
        live[n] = Live(name, attempt, outcome)
    return Durable(last_n, closed, live)


def _apply(session: Durable, kind: int, rest: list[Any]) -> None:
    live = session.live
    if kind == ACCEPTED:
        n, _subject, _time, text = rest
        for line in text.split("\n"):
            frame = msgspec.json.decode(line) if line.strip() else {}
            if frame.get("type") == "request":
                live[n] = Live(frame["id"], 0, None)
                session.last_n = n
                n += 1
    elif kind == STARTED:
        n, attempt, _time = rest
        if (request := live.get(n)) is not None:
            request.attempt = attempt
    elif kind == FINISHED:
        for n, attempt, _results, outcome, *_more in rest[0]:
            if n in live and session.closed:
                del live[n]
            elif (request := live.get(n)) is not None:
                request.attempt = attempt
                request.outcome = outcome
    elif kind == ACKED:
        for n in rest[0]:
            live.pop(n, None)
    elif kind == CLOSED:
        session.closed = True
        session.live = {n: r for n, r in live.items() if r.outcome is None}


def _sqlite(path: Path, claimed: set[str]) -> Iterator[OwnerLog]:
    # A copy: to open the file itself, and close it, would bring its write-ahead log into it.
    with TemporaryDirectory(dir=path.parent) as directory:
        copy = Path(directory) / path.name
        for suffix in ("", "-wal"):
            part = path.with_name(path.name + suffix)
            if part.exists():
                shutil.copyfile(part, copy.with_name(copy.name + suffix))
        with closing(sqlite3.connect(copy)) as database:
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'owners'").fetchall():
                return  # killed before it made its tables
            for number, name, trimmed in database.execute(
                "SELECT number, name, trimmed FROM owners WHERE NOT forgotten ORDER BY name DESC"
            ).fetchall():
                if name in claimed:
                    continue
                base = number << _SEQ_BITS
                rows = database.execute(
                    """SELECT data FROM log WHERE key > ? AND key < ? AND data IS NOT NULL
                       ORDER BY key""",
                    (base + trimmed, base + (1 << _SEQ_BITS)),
                )
                yield OwnerLog(name, [data for (data,) in rows])


def _mongodb(url: str, claimed: set[str]) -> Iterator[OwnerLog]:
    with MongoClient[dict[str, Any]](url, serverSelectionTimeoutMS=10_000) as client:
        database = client.get_default_database()
        known = database["owners"].find({"forgotten_at": {"$exists": False}})
        for owner in known.sort("_id", DESCENDING):
            name = owner["_id"]
            if name in claimed:
                continue
            after = f"{name}/{owner.get('trimmed', 0):016d}"
            heads = database["log"].find({"_id": {"$gt": after, "$lt": f"{name}0"}}).sort("_id")
            yield OwnerLog(name, [_whole(database, head) for head in heads if "fence" not in head])


def _whole(database: Any, head: dict[str, Any]) -> bytes:
    if "parts" not in head:
        return head["data"]
    prefix = f"{head['_id']}/{head['digest']}"
    parts = database["parts"].find({"_id": {"$gt": f"{prefix}/", "$lt": f"{prefix}0"}}).sort("_id")
    return b"".join([*(part["data"] for part in parts), head["data"]])
