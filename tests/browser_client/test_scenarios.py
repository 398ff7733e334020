"""The browser client passes the list of scripted servers that every client must pass."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser_client.node import HERE, node
from tests.integration.scripted_server import SCENARIOS, ScriptedServer


class Follower:
    """One Node.js that follows scenarios, one after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    async def follow(self, url: str, scenario: dict[str, Any]) -> Any:
        """Return the outcomes."""
        return await asyncio.to_thread(self._ask, json.dumps({"url": url, "scenario": scenario}))

    def _ask(self, question: str) -> Any:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        print(question, file=process.stdin, flush=True)
        return json.loads(process.stdout.readline())


@pytest.fixture(scope="module")
def follower() -> Iterator[Follower]:
    with subprocess.Popen(
        [*node(), str(HERE / "scenario.js")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Follower(process)
        process.kill()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[one["name"] for one in SCENARIOS])
async def test_scenario(follower: Follower, scenario: dict[str, Any]) -> None:
    async with ScriptedServer(scenario["connections"]) as server:
        outcomes = await follower.follow(server.url, scenario)
    assert outcomes == scenario["outcomes"]
