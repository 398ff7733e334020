"""`queuesystem` as an operator calls it, on the journal of a server of the tests."""

import asyncio
import json
import sys
from dataclasses import dataclass
from typing import Any

from tests.server_process import ServerProcess


@dataclass
class Said:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What `--json` printed."""
        assert self.code == 0, self.err
        return [json.loads(line) for line in self.out.splitlines()]


async def operate(server: ServerProcess, *arguments: str) -> Said:
    """Run one command line and wait for its end, which may take long on a busy machine."""
    if arguments[1] in {"cancel", "retry", "close"} and "--wait" not in arguments:
        arguments = (*arguments, "--wait", "60")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "server",
        *arguments,
        cwd=server.directory,
        env=server.environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return Said(process.returncode, out.decode(), err.decode())


async def listed(server: ServerProcess, *filters: str) -> dict[str, str]:
    """Return the states by request, as `requests list` tells them."""
    said = await operate(server, "requests", "list", "--json", *filters)
    return {row["request"]: row["state"] for row in said.rows}
