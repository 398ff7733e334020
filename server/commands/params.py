"""The params of `queuesystem send`: from `--param k=v ...`, or from a file of JSON objects."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from server.commands.common import CommandError

Params = dict[str, Any]


def from_pairs(pairs: Sequence[str]) -> Params:
    """Return the params of texts `name=value`; a value that is no JSON is taken as text.

    So `n=3` is a number, `n="3"` (with its quotes) and `n=three` are texts. Raises CommandError.
    """
    params: Params = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not name or not equals:
            raise CommandError(f"--param {pair}: must be NAME=VALUE", exit_code=2)
        if name in params:
            raise CommandError(f"--param {name} is given twice", exit_code=2)
        try:
            params[name] = msgspec.json.decode(text)
        except msgspec.DecodeError:
            params[name] = text
    return params


def from_file(path: str) -> list[Params]:
    """Return the params of every request in a file (`-`: standard input), in order.

    The file holds one JSON object, or one on each line (JSON Lines). Raises CommandError.
    """
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}", exit_code=2) from error
    try:
        return [_object(data)]
    except ValueError as error:
        lines = [line for line in data.splitlines() if line.strip()]
        if len(lines) < 2:
            raise CommandError(f"{path}: {error}", exit_code=2) from error
    requests: list[Params] = []
    for number, line in enumerate(data.splitlines(), 1):
        if line.strip():
            try:
                requests.append(_object(line))
            except ValueError as error:
                raise CommandError(f"{path}, line {number}: {error}", exit_code=2) from error
    return requests


def _object(data: bytes) -> Params:
    """Decode one JSON object. Raises ValueError (msgspec.DecodeError is one)."""
    value = msgspec.json.decode(data)
    if not isinstance(value, dict):
        raise ValueError(  # noqa: TRY004 - as what cannot be decoded
            'the params must be a JSON object, such as {"text": "a b c"}'
        )
    return cast("Params", value)
