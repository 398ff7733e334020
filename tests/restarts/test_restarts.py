"""A short run of scripts/restarts.py: users notice nothing while the server is restarted."""

import asyncio
from pathlib import Path

import pytest

from protocol.codes import CloseCode
from scripts.restarting import run as run_module
from scripts.restarting.options import Options
from scripts.restarting.report import text
from scripts.restarting.run import Run


@pytest.mark.parametrize(("journal", "replace"), [("sqlite", False), ("mongodb", True)])
def test_nothing_is_lost_and_nothing_repeated(
    tmp_path: Path, journal: str, replace: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "LOAD_SECONDS", (0.2, 0.5))
    options = Options(clients=12, restarts=2, journal=journal, replace=replace, seed=20261125)
    run = Run(options, tmp_path)
    asyncio.run(run.run())
    print(text(run))  # noqa: T201 - pytest shows it when the test fails
    assert not run.broken
    assert set(run.codes) == {CloseCode.RESTART, CloseCode.NORMAL}
    assert len(run.restarts) == options.restarts
