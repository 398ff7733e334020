"""The JSON Schema of the frames, generated from their types: `python -m protocol.schema`."""

import sys
from typing import Any

import msgspec

from protocol.frames import SUBPROTOCOL, ClientFrame, ServerFrame


def schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12); `$defs` holds each frame, ClientFrame and ServerFrame."""
    (client, server), components = msgspec.json.schema_components(
        [ClientFrame, ServerFrame], ref_template="#/$defs/{name}"
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": SUBPROTOCOL,
        "description": "One frame. A message is one or more frames joined by newlines (SPEC.md).",
        "anyOf": [{"$ref": "#/$defs/ClientFrame"}, {"$ref": "#/$defs/ServerFrame"}],
        "$defs": {**components, "ClientFrame": client, "ServerFrame": server},
    }


def render() -> str:
    """Return the schema as the text of schema.json."""
    return msgspec.json.format(msgspec.json.encode(schema()), indent=2).decode() + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
