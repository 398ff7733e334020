"""A thousand clients come back at once after the server was killed: all are welcome.

Nothing is lost: what had ended comes again, unless it was seen, and what ran is run again.
"""

import asyncio

from tests.network.conftest import ask, complaints
from tests.network.spec_client import SpecClient
from tests.raw import online
from tests.server_process import ServerProcess, token, unique

CLIENTS = 1000


def make_client() -> SpecClient:
    key = unique()
    return SpecClient(
        [
            {"id": "a", "method": "tally", "params": {"key": f"{key}a"}},
            {"id": "b", "method": "count_to", "params": {"key": f"{key}b", "limit": 2}},
            {"id": "c", "method": "second_time"},
        ],
        may_crash=True,
    )


async def live(client: SpecClient, port: int) -> None:
    """Come back at once, again and again, until all is done."""
    while not await client.visit(port):
        await asyncio.sleep(0.05)  # nobody listens yet


async def test_a_thousand_clients_resume_at_once_after_a_crash(own_server: ServerProcess) -> None:
    await own_server.astart()
    clients = [make_client() for _ in range(CLIENTS)]
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(live(client, own_server.port))
        while any(len(client.ended) < 2 for client in clients):
            await asyncio.sleep(0.05)
        await own_server.restart()
    assert all(client.ended == ["a", "b", "c"] for client in clients)
    assert all(client.results == {"a": [1], "b": [1, 2], "c": [2]} for client in clients)
    assert complaints(own_server) == []
    async with online(own_server.url, token=token("bystander")) as bystander:
        alone = await ask(bystander, "census")
        assert alone["sockets"] < 20  # listening, the journal, this one
