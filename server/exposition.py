"""What a scraper is given: the samples in the format and encoding that it asked for.

Accept, Accept-Encoding -> registry -> Prometheus text or OpenMetrics, plain or gzip
"""

import gzip
from collections.abc import Mapping
from typing import Final

from msgspec import Struct
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

GZIP_LEVEL: Final = 1
"""More takes longer than it saves on the way to a scraper nearby."""


class Exposition(Struct, frozen=True):
    """A body, and the headers that say what it is."""

    body: bytes
    headers: Mapping[str, str]


def expose(registry: CollectorRegistry, accept: str, accept_encoding: str) -> Exposition:
    """Return what `registry` has, in a format of `accept` (else the plain text format).

    Both are values of the headers of these names; empty when there is none.
    """
    try:
        encoder, content_type = choose_encoder(accept)
        body = encoder(registry)
    except (TypeError, ValueError):  # of a version that is no number
        encoder, content_type = choose_encoder("")
        body = encoder(registry)
    headers = {"Content-Type": content_type}
    if _takes_gzip(accept_encoding):
        body = gzip.compress(body, GZIP_LEVEL)
        headers["Content-Encoding"] = "gzip"
    return Exposition(body, headers)


def _takes_gzip(accept_encoding: str) -> bool:
    """Tell whether gzip is named, and not refused with a weight of 0 (RFC 9110 section 12.5.3)."""
    for one in accept_encoding.lower().split(","):
        coding, _, weight = one.replace(" ", "").partition(";")
        if coding == "gzip":
            return weight.removeprefix("q=").strip("0.") != "" or not weight
    return False
