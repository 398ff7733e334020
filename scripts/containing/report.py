"""What was verified, line by line, and what was not as it must be."""

import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

POLL_SECONDS: Final = 0.1
COMMAND_SECONDS: Final = 300.0
"""How long a command may take: the slowest are debootstrap, and builds on a busy machine."""

_started: Final = time.monotonic()


class Failed(Exception):
    """Something is not as it must be; the text says what."""


class CannotRun(Exception):
    """This machine lacks something that the checks need; the text says what."""


def verified(what: str) -> None:
    """Say that something was found to be as it must be."""
    print(f"{time.monotonic() - _started:6.1f} s  ok  {what}", flush=True)


def say(what: str) -> None:
    """Say what is done now."""
    print(f"{time.monotonic() - _started:6.1f} s      {what} ...", flush=True)


def expect(fact: bool, what: str, seen: object = "") -> None:
    """Say that `what` is so when it is a fact. Raises Failed, with what was seen, when not."""
    if not fact:
        raise Failed(f"not so: {what}" + (f"; seen: {seen}" if seen != "" else ""))
    verified(what)


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until `condition` holds, asking it again and again. Raises Failed after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"not within {seconds:g} s: {what}")
        time.sleep(POLL_SECONDS)


def run(command: Sequence[object], **options: Any) -> str:
    """Run a command and return what it printed. Raises Failed with all output when it fails."""
    ended = attempt(command, **options)
    if ended.returncode != 0:
        shown = " ".join(str(word) for word in command)
        raise Failed(f"exit code {ended.returncode} of: {shown}\n{ended.stdout}{ended.stderr}")
    return ended.stdout


def attempt(command: Sequence[object], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command that may fail, within COMMAND_SECONDS. Raises Failed when it takes longer."""
    words = [str(word) for word in command]
    try:
        return subprocess.run(
            words,
            stdin=None if "input" in options else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
            **options,
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"no end within {COMMAND_SECONDS:g} s: {' '.join(words)}") from error
