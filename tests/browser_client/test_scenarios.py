"""The browser client passes the list of scripted servers that every client must pass."""

from typing import Any

import pytest

from tests.browser_client.node import Page
from tests.integration.scripted_server import SCENARIOS, ScriptedServer


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[one["name"] for one in SCENARIOS])
async def test_scenario(scenario: dict[str, Any]) -> None:
    async with ScriptedServer(scenario["connections"]) as server:
        page = await Page.open("scenario.js")
        try:
            outcomes = await page.run({"url": server.url, "scenario": scenario})
        finally:
            await page.kill()
    assert outcomes == scenario["outcomes"]
