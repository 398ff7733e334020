"""The browser client with fake sockets, storage and page: see client.test.js."""

import asyncio

from tests.browser_client.node import HERE, node


async def test_the_tests_in_javascript_pass() -> None:
    process = await asyncio.create_subprocess_exec(
        *node(),
        "--expose-gc",
        "--test",
        str(HERE / "client.test.js"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
