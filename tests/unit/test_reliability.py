"""RELIABILITY.md names the commands that show its lines: what they name exists."""

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.server_process import ROOT

COMMAND = re.compile(r"`((?:\.venv/bin/python )?scripts/[^`]*)`")
WORDS_OF_K = {"and", "or", "not"}


def commands() -> list[str]:
    text = (ROOT / "RELIABILITY.md").read_text(encoding="utf-8")
    return sorted(set(COMMAND.findall(text)))


def names_of_tests(path: Path) -> str:
    """Return the text in which the names of the tests below `path` are, and of their cases."""
    files = [path] if path.is_file() else sorted(path.rglob("test_*.py"))
    return "\n".join(f"{file.name}\n{file.read_text(encoding='utf-8')}" for file in files)


def selections(words: list[str]) -> Iterator[str]:
    """Yield what the expression after -k looks for."""
    for option, expression in pairwise(words):
        if option == "-k":
            yield from (word for word in expression.split() if word not in WORDS_OF_K)


@pytest.mark.parametrize("command", commands())
def test_what_a_command_names_exists(command: str) -> None:
    words = shlex.split(command)
    if words[0].endswith("python"):
        del words[0]
    assert (ROOT / words[0]).is_file()
    if words[0] != "scripts/test":
        return
    tests = ""
    for word in words[1:]:
        if word.startswith("tests/"):
            path, _, name = word.partition("::")
            assert (ROOT / path).exists(), path
            tests += names_of_tests(ROOT / path)
            assert f"def {name}" in tests
    for word in selections(words):
        assert word in tests, word
