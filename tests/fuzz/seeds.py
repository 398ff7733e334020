"""The corpus: a small file for each thing worth beginning with, made of what real sessions say.

.venv/bin/python -m tests.fuzz.seeds    writes those that are not there
"""

from collections.abc import Iterator
from random import Random

from msgspec import Raw

from protocol import frames as wire
from protocol.codec import encode
from server.journal.entries import (
    Accepted,
    Acked,
    Authorized,
    Claimed,
    Closed,
    End,
    Entry,
    Finished,
    Opened,
    Results,
    Started,
    Stopped,
    encode_commit,
)
from tests.fuzz.targets import CORPUS
from tests.rules_bench import Bench

CHECKSUM_BYTES = 4


def some_entries() -> list[Entry]:
    """Return entries of every kind, in an order that makes sense."""
    request = '{"type":"request","id":"%s","method":"m","params":{"a":1}}'
    bench = Bench()
    bench.connect()
    bench.accept("x", "y")
    bench.run(b'"1"', b'"2"')
    return [
        Opened("s", "alice", "", 1.0),
        Accepted("s", 1, "alice", 2.0, (request % "a") + "\n" + (request % "b")),
        Started("s", 1, 1, 3.0),
        Results("s", 1, 0, [b"1", b'"two"']),
        Finished("s", [End(1, 1, 3, "done", 3.0, 4.0, 2, [b"3"], b"")]),
        Authorized("s", "admin"),
        Acked("s", [1], 0, 0),
        Accepted("s", 3, "alice", 5.0, '{"type":"ack","seq":4}\n' + request % "c"),
        Finished("s", [End(3, 0, 0, "cancelled", 0.0, 6.0, 0, [], b'{"code":"cancelled"}')]),
        bench.session.state.snapshot(),
        Closed("s"),
        Claimed("0001-ab"),
        Stopped(),
    ]


def some_frames() -> list[wire.ClientFrame | wire.ServerFrame]:
    """Return frames of every kind."""
    status = wire.RequestStatus("a", 1, "waiting", 0, 0)
    limits = wire.Limits(64, 1_048_576, 16_777_216, 86_400.0)
    return [
        wire.Hello("a.b.c", "s", "e", 3, started=True, client=wire.ClientInfo("n", "1")),
        wire.Request("a", "words", Raw(b'{"text":"to be"}'), 0.5, "cancel"),
        wire.Cancel("a"),
        wire.Ack(3),
        wire.Refresh("a.b.c"),
        wire.Bye(cancel=True),
        wire.Welcome("s", True, "e", 3, [status], 9.5, limits, wire.ServerInfo("q", "1")),
        wire.Accepted("a", 1, duplicate=True, state="acknowledged"),
        wire.Started("a", 1),
        wire.Result("a", 1, 0, Raw(b'{"x":[1,null]}'), 4),
        wire.Done("a", 5, 1, 1),
        wire.Error("timeout", "m", False, "a", 6, 1, 0.5, {"left": 1}),
        wire.Refreshed(9.5),
        wire.GoAway("restart", 0.5),
    ]


def seeds() -> Iterator[tuple[str, str, bytes]]:
    """Return target, name and content of each file."""
    frames = some_frames()
    for frame in frames:
        yield "codec", type(frame).__name__.lower(), encode(frame)
    yield "codec", "all", b"\n".join(map(encode, frames))
    everything = some_entries()
    for number, entry in enumerate(everything):
        name = f"{number}-{type(entry).__name__.lower()}"
        yield "entries", name, encode_commit([entry])[:-CHECKSUM_BYTES]
    yield "entries", "all", encode_commit(everything)[:-CHECKSUM_BYTES]
    for number in range(8):
        random = Random(number)
        yield "session", f"random-{number}", random.randbytes(64 << number % 3)


if __name__ == "__main__":
    for target, name, content in seeds():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
