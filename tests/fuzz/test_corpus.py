"""What the fuzzers begin with, and what they found before, in every run of the tests."""

from pathlib import Path

import pytest

from tests.fuzz.seeds import seeds
from tests.fuzz.targets import CORPUS, TARGETS

FILES = sorted(path for path in CORPUS.rglob("*") if path.is_file())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CORPUS)))
def test_a_file_of_the_corpus_is_taken(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


def test_the_seeds_are_those_of_today() -> None:
    """Renew them with: python -m tests.fuzz.seeds"""
    for target, name, content in seeds():
        assert (CORPUS / target / name).read_bytes() == content, f"{target}/{name}"
