"""scripts/containers.py where it cannot run; where it can, it is a test itself, of two minutes."""

import os
import sys
from pathlib import Path

import pytest
import yaml

from scripts import containers
from tests.containers import compose


def test_without_root_it_says_so_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "argv", ["containers.py"])
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert containers.main() == 2
    assert "cannot run here: only root" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_stand_ins_take_the_place_of_services_that_exist() -> None:
    text = (compose.ROOT / "scripts/containing/standins/compose.yml").read_text()
    assert yaml.safe_load(text)["services"].keys() <= compose.services().keys()
