"""The cases of test_websocket_conformance.py, by the categories of the Autobahn test suite.

A case is what a client sends, and what an echo server must answer. Written from RFC 6455.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from scripts.bench.framing import CLOSE, CONTINUATION, PING, PONG, TEXT
from tests.network.wire import BINARY, Frame, close_payload, frame

LIMIT_BYTES = 2**20
"""The largest message of the echo server."""
NORMAL = 1000
PROTOCOL_ERROR = 1002
NO_STATUS = 1005
NOT_UTF8 = 1007
TOO_BIG = 1009


@dataclass(frozen=True)
class Case:
    """`sent` in segments of `chop` bytes (0: in one go) is answered with `frames`.

    Then the server closes with `code`. When it does not do so by itself, the client closes, and
    `code` is NORMAL.
    """

    name: str
    sent: bytes
    frames: Sequence[Frame] = ()
    code: int = NORMAL
    chop: int = 0
    client_closes: bool = field(default=False)


def works(name: str, sent: bytes, *frames: Frame, chop: int = 0) -> Case:
    """Return a case after which the connection is as before."""
    return Case(name, sent, frames, chop=chop, client_closes=True)


def fails(
    name: str, sent: bytes, code: int = PROTOCOL_ERROR, *frames: Frame, chop: int = 0
) -> Case:
    """Return a case in which the server fails the connection."""
    return Case(name, sent, frames, code, chop)


def in_frames(opcode: int, payload: bytes, size: int) -> bytes:
    """Return a message in frames of `size` bytes."""
    pieces = [payload[start : start + size] for start in range(0, len(payload), size)] or [b""]
    last = len(pieces) - 1
    return b"".join(
        frame(CONTINUATION if number else opcode, piece, fin=number == last)
        for number, piece in enumerate(pieces)
    )


def framing() -> Iterator[Case]:
    """1: payload lengths on both sides of where their encoding changes."""
    for kind, opcode, filler in (("text", TEXT, b"*"), ("binary", BINARY, b"\xfe")):
        for size in (0, 1, 125, 126, 127, 128, 65_535, 65_536):
            payload = filler * size
            echo = Frame(opcode, payload)
            name = f"1 {kind} of {size}"
            yield works(name, frame(opcode, payload), echo)
            yield works(f"{name} in segments of 997", frame(opcode, payload), echo, chop=997)
            if size < 1000:
                yield works(f"{name} in octets", frame(opcode, payload), echo, chop=1)
    for mask in (bytes(4), b"\xff" * 4):
        yield works(f"1 mask {mask.hex()}", frame(TEXT, b"abc", mask=mask), Frame(TEXT, b"abc"))
    for opcode in (TEXT, BINARY, CONTINUATION, PING, PONG, CLOSE):
        yield fails(f"1 opcode {opcode} not masked", frame(opcode, b"\x03\xe8", mask=None))


def pings() -> Iterator[Case]:
    """2: pings and pongs."""
    for name, payload in {
        "nothing": b"",
        "text": b"Hello, world!",
        "no UTF-8": b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff",
        "125 bytes": b"\xfe" * 125,
    }.items():
        answer = Frame(PONG, payload)
        yield works(f"2 ping with {name}", frame(PING, payload), answer)
        yield works(f"2 ping with {name} in octets", frame(PING, payload), answer, chop=1)
        yield works(f"2 unsolicited pong with {name}", frame(PONG, payload))
        yield works(
            f"2 ping behind an unsolicited pong with {name}",
            frame(PONG, payload) + frame(PING, b"p"),
            Frame(PONG, b"p"),
        )
    many = [b"payload %d" % number for number in range(10)]
    sent = b"".join(frame(PING, one) for one in many)
    for chop in (0, 1):
        yield works(f"2 ten pings, {chop=}", sent, *(Frame(PONG, p) for p in many), chop=chop)
    for opcode in (PING, PONG):
        yield fails(f"2 opcode {opcode} with 126 bytes", frame(opcode, b"x" * 126))
        yield fails(f"2 opcode {opcode} with 65,536 bytes", frame(opcode, b"x" * 65_536))


def reserved_bits() -> Iterator[Case]:
    """3: no extension was agreed, so they must be 0."""
    for rsv in range(1, 8):
        for name, opcode, payload in (
            ("text", TEXT, b"x"),
            ("binary", BINARY, b"x"),
            ("ping", PING, b"x"),
            ("close", CLOSE, close_payload(NORMAL)),
        ):
            yield fails(f"3 bits {rsv:03b} in {name}", frame(opcode, payload, rsv=rsv))
        yield fails(
            f"3 bits {rsv:03b} in a continuation",
            frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"x", rsv=rsv),
        )
        yield fails(f"3 bits {rsv:03b} in octets", frame(TEXT, b"x", rsv=rsv), chop=1)


def opcodes() -> Iterator[Case]:
    """4: opcodes without a meaning."""
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield fails(f"4 opcode {opcode}", frame(opcode))
        yield fails(f"4 opcode {opcode} with payload", frame(opcode, b"x"))
        yield fails(f"4 opcode {opcode} in octets", frame(opcode, b"x"), chop=1)


def fragmentation() -> Iterator[Case]:
    """5: messages in several frames, and control frames between them."""
    first = frame(TEXT, b"one", fin=False)
    middle = frame(CONTINUATION, b"two", fin=False)
    last = frame(CONTINUATION, b"three")
    ping, pong = frame(PING, b"p"), Frame(PONG, b"p")
    for chop in (0, 1):
        suffix = " in octets" if chop else ""
        for name, sent, frames in (
            ("two", first + last, [Frame(TEXT, b"onethree")]),
            ("three", first + middle + last, [Frame(TEXT, b"onetwothree")]),
            ("a ping between", first + ping + last, [pong, Frame(TEXT, b"onethree")]),
            (
                "pings between",
                first + ping + middle + ping + last,
                [pong, pong, Frame(TEXT, b"onetwothree")],
            ),
            ("a pong between", first + frame(PONG) + last, [Frame(TEXT, b"onethree")]),
            ("empty ones", frame(TEXT, fin=False) + frame(CONTINUATION), [Frame(TEXT, b"")]),
            (
                "empty ones around",
                frame(TEXT, fin=False) + middle + frame(CONTINUATION),
                [Frame(TEXT, b"two")],
            ),
            (
                "two messages",
                first + last + frame(BINARY, b"\xff", fin=False) + last,
                [Frame(TEXT, b"onethree"), Frame(BINARY, b"\xffthree")],
            ),
        ):
            yield works(f"5 {name}{suffix}", sent, *frames, chop=chop)
        for name, sent, frames in (
            ("a ping in fragments", frame(PING, b"a", fin=False) + frame(CONTINUATION), []),
            ("a pong in fragments", frame(PONG, b"a", fin=False) + frame(CONTINUATION), []),
            ("a close in fragments", frame(CLOSE, b"\x03\xe8", fin=False), []),
            ("a continuation of nothing", last, []),
            ("a continuation of nothing, not final", middle, []),
            ("an empty continuation of nothing", frame(CONTINUATION), []),
            ("a text inside a message", first + frame(TEXT, b"x"), []),
            ("a binary inside a message", first + frame(BINARY, b"x"), []),
            ("a start inside a message", first + first, []),
            ("a ping, then a text inside a message", first + ping + frame(TEXT), [pong]),
        ):
            yield fails(f"5 {name}{suffix}", sent, PROTOCOL_ERROR, *frames, chop=chop)


VALID_UTF8 = {
    "greek": "Hello-µ@ßöäüàá-UTF-8!!".encode(),
    "kosme": b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5",
    "null": b"\x00",
    "last of one": b"\x7f",
    "first of two": b"\xc2\x80",
    "last of two": b"\xdf\xbf",
    "first of three": b"\xe0\xa0\x80",
    "before the surrogates": b"\xed\x9f\xbf",
    "behind the surrogates": b"\xee\x80\x80",
    "replacement": b"\xef\xbf\xbd",
    "not a character": b"\xef\xbf\xbe",
    "last of three": b"\xef\xbf\xbf",
    "byte order mark": b"\xef\xbb\xbf",
    "first of four": b"\xf0\x90\x80\x80",
    "emoji": "\U0001f600".encode(),
    "not a character above": b"\xf0\x9f\xbf\xbe",
    "last of four": b"\xf4\x8f\xbf\xbf",
    "mixed": "a\u00e9\u20ac\U00010348z".encode(),
}
INVALID_UTF8 = {
    "a continuation": b"\x80",
    "last continuation": b"\xbf",
    "continuations": b"\x80\xbf\x80\xbf",
    "a continuation too many": b"\xc3\xa9\xa9",
    "fe": b"\xfe",
    "ff": b"\xff",
    "start of two alone": b"\xc3",
    "start of two and a space": b"\xc3 ",
    "two of three": b"\xe2\x82",
    "two of three and a letter": b"\xe2\x82a",
    "three of four": b"\xf0\x9f\x98",
    "three of four and a letter": b"\xf0\x9f\x98a",
    "overlong slash in two": b"\xc0\xaf",
    "overlong slash in three": b"\xe0\x80\xaf",
    "overlong slash in four": b"\xf0\x80\x80\xaf",
    "overlong null": b"\xc0\x80",
    "overlong last of one": b"\xc1\xbf",
    "overlong last of two": b"\xe0\x9f\xbf",
    "overlong last of three": b"\xf0\x8f\xbf\xbf",
    "first surrogate": b"\xed\xa0\x80",
    "last surrogate": b"\xed\xbf\xbf",
    "pair of surrogates": b"\xed\xa0\x80\xed\xb0\x80",
    "above the last": b"\xf4\x90\x80\x80",
    "start of four too high": b"\xf5\x80\x80\x80",
    "five": b"\xf8\x88\x80\x80\x80",
    "six": b"\xfc\x84\x80\x80\x80\x80",
    "kosme, then a surrogate": b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    "latin-1": "größe".encode("latin-1"),
}


def utf8() -> Iterator[Case]:
    """6: text must be UTF-8, wherever it is cut; what is wrong is found at the message's end."""
    for name, text in VALID_UTF8.items():
        echo = Frame(TEXT, text)
        yield works(f"6 {name}", frame(TEXT, text), echo)
        yield works(f"6 {name} in octets", frame(TEXT, text), echo, chop=1)
        yield works(f"6 {name} in frames of 1", in_frames(TEXT, text, 1), echo)
        yield works(
            f"6 {name} behind letters", frame(TEXT, b"ab" + text), Frame(TEXT, b"ab" + text)
        )
    for name, text in INVALID_UTF8.items():
        yield fails(f"6 {name}", frame(TEXT, text), NOT_UTF8)
        yield fails(f"6 {name} in octets", frame(TEXT, text), NOT_UTF8, chop=1)
        yield fails(f"6 {name} in frames of 1", in_frames(TEXT, text, 1), NOT_UTF8)
        yield fails(f"6 {name} between letters", frame(TEXT, b"ab" + text + b"cd"), NOT_UTF8)
        yield works(f"6 {name} as binary", frame(BINARY, text), Frame(BINARY, text))


VALID_CODES = [*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999]
INVALID_CODES = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535]


def closing() -> Iterator[Case]:
    """7: the close frame: codes, reasons, and what is behind it."""
    for code in VALID_CODES:
        yield Case(f"7 code {code}", frame(CLOSE, close_payload(code)), code=code)
    for code in INVALID_CODES:
        yield fails(f"7 invalid code {code}", frame(CLOSE, close_payload(code)))
        yield fails(f"7 invalid code {code} and reason", frame(CLOSE, close_payload(code, b"why")))
    close = frame(CLOSE, close_payload(NORMAL))
    yield Case("7 no code", frame(CLOSE), code=NO_STATUS)
    yield fails("7 half a code", frame(CLOSE, b"\x03"))
    for reason in (b"why", "größe".encode(), b"x" * 123):
        yield Case(f"7 reason of {len(reason)}", frame(CLOSE, close_payload(NORMAL, reason)))
    yield fails("7 reason of 124", frame(CLOSE, close_payload(NORMAL, b"x" * 124)))
    for name, reason in INVALID_UTF8.items():
        yield fails(f"7 reason: {name}", frame(CLOSE, close_payload(NORMAL, reason)), NOT_UTF8)
    for name, more in (
        ("text", frame(TEXT, b"x")),
        ("ping", frame(PING)),
        ("close", close),
        ("nonsense", b"\xff" * 20),
        ("a part of a frame", b"\x81"),
    ):
        yield Case(f"7 {name} behind close", close + more)
        yield Case(f"7 {name} behind close in octets", close + more, chop=1)
    yield Case("7 close in octets", close, chop=1)
    begun = frame(TEXT, b"x", fin=False)
    yield Case("7 close inside a message", begun + close)
    yield Case("7 close inside a message, then its rest", begun + close + frame(CONTINUATION))
    yield fails("7 invalid code inside a message", begun + frame(CLOSE, close_payload(999)))


def limits() -> Iterator[Case]:
    """9: large messages, up to the limit and above."""
    for kind, opcode in (("text", TEXT), ("binary", BINARY)):
        for size in (2**16, 2**18, LIMIT_BYTES):
            payload = b"*" * size
            echo = Frame(opcode, payload)
            yield works(f"9 {kind} of {size}", frame(opcode, payload), echo)
            for pieces in (64, 1024, 2**15):
                if size // pieces <= 4096:
                    sent = in_frames(opcode, payload, pieces)
                    yield works(f"9 {kind} of {size} in frames of {pieces}", sent, echo)
            yield works(f"9 {kind} of {size} in segments", frame(opcode, payload), echo, chop=8192)
        over = b"*" * (LIMIT_BYTES + 1)
        yield fails(f"9 {kind} over the limit", frame(opcode, over), TOO_BIG)
        yield fails(
            f"9 {kind} over the limit in frames", in_frames(opcode, over, LIMIT_BYTES), TOO_BIG
        )
        for size in (2**31, 2**63 - 1, 2**64 - 1):
            head = bytes([0x80 | opcode, 0x80 | 127]) + size.to_bytes(8)
            yield fails(f"9 {kind} says it has {size}", head, TOO_BIG)
    echoes = [Frame(TEXT, b"%d" % number) for number in range(1000)]
    sent = b"".join(frame(TEXT, echo.payload) for echo in echoes)
    yield works("9 a thousand messages", sent, *echoes)
    yield works("9 a thousand messages in segments", sent, *echoes, chop=1300)


def other() -> Iterator[Case]:
    """10: automatic fragmentation; and what is not forbidden to accept."""
    payload = b"*" * 65_536
    yield works("10 in frames of 1,300", in_frames(TEXT, payload, 1300), Frame(TEXT, payload))
    # RFC 6455 section 5.2 asks senders for the shortest form of a length, and nothing of receivers.
    mask, text = bytes(4), Frame(TEXT, b"abc")
    yield works("10 a length of 3 in two bytes", b"\x81\xfe\x00\x03" + mask + b"abc", text)
    long = b"\x81\xff" + (3).to_bytes(8) + mask + b"abc"
    yield works("10 a length of 3 in eight bytes", long, text)


CASES = [
    case
    for category in (
        framing,
        pings,
        reserved_bits,
        opcodes,
        fragmentation,
        utf8,
        closing,
        limits,
        other,
    )
    for case in category()
]
