"""Types of command line arguments that several scripts have."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path


def count(most: int) -> Callable[[str], int]:
    """Return what reads a whole number from 1 to `most`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to {most}")
        return int(text)

    return parse


def writable(text: str) -> Path:
    """Refuse before the run, not after it, what cannot be written."""
    path = Path(text)
    if not os.access(path if path.exists() else path.parent, os.W_OK) or path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written")
    return path
