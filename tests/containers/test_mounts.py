"""What docker-compose.yml mounts from the repository is there, and cannot be written."""

from collections.abc import Iterator

import pytest

from tests.containers import compose


def mounts() -> Iterator[tuple[str, str]]:
    """Yield path in the repository and mode of every file or folder that a service gets."""
    for service in compose.services().values():
        for volume in service.get("volumes", []):
            source, _, rest = volume.partition(":")
            if source.startswith("."):
                yield source, rest.rpartition(":")[2]


@pytest.mark.parametrize(("source", "mode"), sorted(set(mounts())))
def test_a_mounted_path_exists_and_is_read_only(source: str, mode: str) -> None:
    assert (compose.ROOT / source).exists()
    assert mode == "ro"
