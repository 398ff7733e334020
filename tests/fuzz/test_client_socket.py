"""The client on a real socket against a hostile server; `scripts/fuzz.py client` runs longer."""

import logging

import pytest

from scripts.fuzzing.client_fuzz import run


@pytest.mark.parametrize("seed", range(10))
async def test_whatever_a_server_sends_the_client_ends_as_documented(
    seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    await run(str(seed))
    assert not caplog.records, caplog.text  # neither of the client nor of the hostile server
