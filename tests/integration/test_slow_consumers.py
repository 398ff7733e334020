"""A short run of scripts/slow_consumers.py; what it says of time depends on the machine."""

from pathlib import Path

from scripts.slowreading.run import Load, run
from server.settings import Settings

MIB = 2**20


def test_clients_that_stop_reading_cost_no_more_memory_than_the_settings_say(
    tmp_path: Path,
) -> None:
    load = Load(clients=8, total_bytes=64 * MIB, seconds=1, slow_consumer_seconds=0.1)
    outcome = run(load, tmp_path, Settings(result_memory_bytes=8 * MIB))
    assert outcome.produced_bytes >= load.total_bytes
    assert outcome.disconnected > 0
    assert outcome.peak_bytes <= outcome.bound_bytes
