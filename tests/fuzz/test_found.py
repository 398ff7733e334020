"""The fuzzers find what they look for: each is shown something broken."""

import json
from pathlib import Path

import pytest

from scripts.fuzzing.watch import Watch


@pytest.mark.parametrize(
    "line",
    [
        json.dumps({"event": "worker_failed", "level": "critical"}),
        json.dumps({"event": "x", "level": "error"}),
        json.dumps({"event": "x", "level": "info", "exception": "Traceback"}),
        "Traceback (most recent call last):",
        "{}",
    ],
)
def test_a_line_that_tells_of_a_failure_is_one(tmp_path: Path, line: str) -> None:
    log = tmp_path / "server.log"
    watch = Watch(1, log)
    log.write_text(json.dumps({"event": "serving", "level": "info"}) + "\n" + line + "\n")
    assert watch.read_log() == [line]
    assert watch.read_log() == []
