"""Making bad input out of good: bytes, JSON values and frames. All chance comes from `random`.

mutate_bytes  flips, cuts, repeats and inserts anywhere
object_text   an object whose fields are dropped, doubled, renamed, or hold what they must not
"""

import json
from collections.abc import Mapping
from random import Random
from typing import Any, Final

ODD_BYTES: Final = (
    b"\0",
    b"\n",
    b"\r",
    b" ",
    b"\xff",
    b"\xc0\x80",  # an overlong NUL
    b"\xed\xa0\x80",  # a surrogate
    b"\xef\xbb\xbf",  # a byte order mark
    b"\xc2\x85",  # NEXT LINE
    b"\xe2\x80\xa8",  # LINE SEPARATOR
    b"\\ud800",
    b"\\u0000",
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[" * 1500,
    b"9" * 400,
    b"1e999",
    b"NaN",
    b"null",
    b'{"type":"ack","seq":0}',
)
ODD_VALUES: Final = (
    "null",
    "true",
    "-1",
    "0",
    "1",
    "-0",
    "0.5",
    "1e308",
    "1e999",
    "NaN",
    str(2**31),
    str(2**53 + 1),
    str(2**63),
    str(2**64),
    "9" * 400,
    "9" * 5000,
    '""',
    '"a"',
    '"\\u0000"',
    '"\\ud800"',
    '"\\ud83d\\ude00"',
    '"\u2028\u2029\u0085\ufeff"',
    '"' + "x" * 129 + '"',
    '"' + "x" * 2000 + '"',
    "[]",
    "{}",
    "[1,[2,[3]]]",
    '{"a":1,"a":2}',
    "[" * 200 + "]" * 200,
    "[" * 1500 + "]" * 1500,
    '{"text":"x"}',
    "\t1 ",
    "01",
    "'a'",
)
"""JSON texts, some of them none."""


def mutate_bytes(data: bytes, random: Random) -> bytes:
    """Return `data` with a few things wrong."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4, 16))):
        at = random.randrange(len(changed) + 1)
        match random.randrange(6):
            case 0 if changed:
                changed[at - 1] ^= 1 << random.randrange(8)
            case 1 if changed:
                changed[at - 1] = random.randrange(256)
            case 2:
                changed[at:at] = random.choice(ODD_BYTES)
            case 3:
                del changed[at : at + random.randrange(1, 9)]
            case 4:
                changed[at:at] = changed[at : at + random.randrange(1, 30)]
            case _ if random.random() < 0.3:
                del changed[at:]
    return bytes(changed)


def object_text(fields: Mapping[str, Any], random: Random, badness: float) -> str:
    """Return a JSON object; each field goes wrong with probability `badness`."""
    parts: list[tuple[str, str]] = []
    for name, value in fields.items():
        text = json.dumps(value, ensure_ascii=False)
        if random.random() < badness:
            match random.randrange(5):
                case 0:
                    continue
                case 1:
                    parts.append((name, random.choice(ODD_VALUES)))
                case 2:
                    name = random.choice((name.upper(), name + " ", "", "type", "id"))  # noqa: PLW2901
                case _:
                    text = random.choice(ODD_VALUES)
        parts.append((name, text))
    if random.random() < badness:
        parts.insert(random.randrange(len(parts) + 1), ("new", random.choice(ODD_VALUES)))
    if random.random() < badness / 2:
        random.shuffle(parts)
    return "{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in parts) + "}"
