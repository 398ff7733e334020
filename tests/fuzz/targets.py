"""What is fuzzed, as functions of bytes that raise when something is wrong.

scripts/fuzz.py runs them with coverage to guide it, the tests here with Hypothesis and with the
corpus, which is a folder of files for each of them.
"""

import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from protocol import frames as wire
from protocol.codec import (
    BAD_FRAMES_MAX,
    FrameError,
    decode_client_message,
    decode_server_message,
    encode,
)
from protocol.codes import ErrorCode
from server.journal.entries import Accepted, decode_commit, encode_commit
from server.journal.log import Damaged
from server.journal.outline import RequestOutline, decode_outline, decode_requests
from server.journal.state import SessionState, State, digest, fold
from server.session import refusal
from tests.fuzz.hostile_session import HostileSession

CORPUS: Final = Path(__file__).with_name("corpus")

Frame = wire.ClientFrame | wire.ServerFrame


def codec(data: bytes) -> None:
    """Both decoders give a frame or an error for each line; frames go and come unchanged."""
    of_bytes = decode_client_message(data)
    _check_frames(of_bytes, decode_client_message)
    assert of_bytes, "a message is answered"
    errors = [frame for frame in of_bytes if isinstance(frame, FrameError)]
    assert len(errors) <= BAD_FRAMES_MAX + 1
    for error in errors:
        answer = encode(refusal(ErrorCode.BAD_FRAME, str(error), error.id))
        (answered,) = decode_server_message(answer)
        assert isinstance(answered, wire.Error)
        assert answered.id == error.id
    _check_frames(decode_server_message(data), decode_server_message)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    of_text = decode_client_message(text)
    assert list(map(_shown, of_text)) == list(map(_shown, of_bytes))
    if all(isinstance(frame, wire.Request | wire.Ack) for frame in of_text):
        _check_journaled(text, [frame for frame in of_text if isinstance(frame, wire.Request)])


def _check_frames(
    frames: Sequence[Frame | FrameError],
    decode: Callable[[bytes], Sequence[Frame | FrameError]],
) -> None:
    for frame in frames:
        if not isinstance(frame, FrameError):
            line = encode(frame)
            if b"\n" in line:
                # Only where the sender had it, between the tokens of what is passed on unread.
                assert isinstance(frame, wire.Request | wire.Result)
                line = line.replace(b"\n", b" ")
            again = decode(line)
            assert len(again) == 1
            assert _shown(again[0]).replace("\n", " ") == _shown(frame).replace("\n", " ")


def _shown(frame: Frame | FrameError) -> str:
    """Return all that `frame` says."""
    if isinstance(frame, FrameError):
        return f"error {frame} {frame.id}"
    return f"{type(frame).__name__} {encode(frame)!r}"


def _check_journaled(text: str, requests: Sequence[wire.Request]) -> None:
    """See that a message of requests says the same when it is read from the journal."""
    entry = Accepted("s", 1, "alice", 1.0, text)
    assert decode_commit(encode_commit([entry])) == [entry]
    outlines = [one for one in decode_requests(text) if isinstance(one, RequestOutline)]
    assert [(one.id, one.method) for one in outlines] == [(one.id, one.method) for one in requests]
    if len({one.id for one in requests}) == len(requests):  # the rules see to that
        state = State()
        state.sessions["s"] = SessionState("s", "alice", "")
        fold(state, [entry])
        folded = state.sessions["s"].live.values()
        assert [(r.id, r.digest) for r in folded] == [(r.id, digest(r)) for r in requests]


def entries(data: bytes) -> None:
    """A commit is decoded to what it was made of, or refused as damaged; so is what it says.

    `data` is a commit without its checksum, which no fuzzer would ever get right.
    """
    try:
        decoded = decode_commit(data + zlib.crc32(data).to_bytes(4))
    except Damaged:
        return
    again = encode_commit(decoded)
    assert encode_commit(decode_commit(again)) == again
    decode_outline(again)
    with suppress(Damaged):
        fold(State(), decoded)


def session(data: bytes) -> None:
    """Whatever a client does, its session stays within its bounds, and others untouched."""
    HostileSession(data).run()


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "codec": codec,
    "entries": entries,
    "session": session,
}
