"""Texts and bytes that come near to what is expected, for Hypothesis."""

import json
from random import Random

from hypothesis import strategies as st

from scripts.fuzzing.dialogue import Dialogue, Tokens
from scripts.fuzzing.mutation import ODD_VALUES, mutate_bytes

odd_text = st.text(
    st.characters(codec="utf-8", categories=None)
    | st.sampled_from('\0\n\r\t \x0b\x0c\x1c\x7f\x85\xa0\u2028\u2029\ufeff"\\{}[],:'),
    max_size=200,
)
"""Any text without surrogates: what a WebSocket's text message can be."""

json_text = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | odd_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(odd_text, inner, max_size=4),
    max_leaves=8,
).map(lambda value: json.dumps(value, ensure_ascii=False)) | st.sampled_from(ODD_VALUES)


def _messages(seed: int, badness: float) -> bytes:
    return Dialogue(Random(seed), Tokens(["good"], ["bad"]), badness).message()


messages = st.builds(_messages, st.integers(0, 2**32), st.sampled_from((0, 0.1, 0.5, 1)))
"""What a hostile client sends."""


def mutated(data: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Return what `data` gives with a few things wrong."""
    return st.builds(
        lambda good, seed: mutate_bytes(good, Random(seed)),
        data,
        st.integers(0, 2**32),
    )
