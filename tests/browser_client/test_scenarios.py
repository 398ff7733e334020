"""The browser client passes the list of scripted servers that every client must pass."""

from typing import Any

import pytest

from tests.browser_client.node import Page
from tests.integration.scripted_server import SCENARIOS, ScriptedServer


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[one["name"] for one in SCENARIOS])
async def test_scenario(scenario: dict[str, Any]) -> None:
    async with (
        ScriptedServer(scenario["connections"]) as server,
        Page("scenario.js", {"url": server.url, "scenario": scenario}) as page,
    ):
        said = [line async for line in page]
    assert said == [scenario["outcomes"]]
