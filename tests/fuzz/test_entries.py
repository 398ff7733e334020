"""A commit says what it was made of, or that it is damaged; never anything else."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.fuzzing.mutation import mutate_bytes
from server.journal.entries import Entry, decode_commit, encode_commit
from server.journal.log import Damaged
from server.journal.outline import decode_outline
from tests.fuzz.seeds import CHECKSUM_BYTES, some_entries
from tests.fuzz.targets import entries

COMMIT = encode_commit(some_entries())


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_bytes_that_are_no_commit_are_damaged(data: bytes) -> None:
    for decode in (decode_commit, decode_outline):
        with pytest.raises(Damaged):
            decode(data)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32))
def test_a_changed_commit_is_damaged(seed: int) -> None:
    changed = mutate_bytes(COMMIT, Random(seed))
    if changed != COMMIT:
        for decode in (decode_commit, decode_outline):
            with pytest.raises(Damaged):
                decode(changed)


@pytest.mark.parametrize("bit", range(8))
def test_each_flipped_bit_is_found(bit: int) -> None:
    for at in range(len(COMMIT)):
        changed = bytearray(COMMIT)
        changed[at] ^= 1 << bit
        with pytest.raises(Damaged):
            decode_commit(bytes(changed))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(some_entries()), max_size=30))
def test_entries_in_any_order_are_folded_or_called_damaged(chosen: list[Entry]) -> None:
    entries(encode_commit(chosen)[:-CHECKSUM_BYTES])
