"""Nobody reads the log, so its pipe is full: the server goes on, and says later what it lost."""

import asyncio
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.raw import online
from tests.server_process import ServerProcess

HANDLERS = "tests.integration.log_handlers:handlers"
LINES = 300
LINE_BYTES = 8000
"""All of them are more than pipe and server keep."""


class UnreadServer(ServerProcess):
    """Its log is a pipe of one page, which is read when `read` is called."""

    def spawn(self) -> None:
        self.reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "server", "serve"],
            cwd=self.directory,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
        )
        os.close(writer)
        self._read = b""

    def read_until(self, event: str) -> list[dict[str, Any]]:
        """Read up to the line with that event; return the lines that came."""
        lines: list[dict[str, Any]] = []
        while not lines or lines[-1]["event"] != event:
            line, newline, self._read = self._read.partition(b"\n")
            if newline:
                lines.append(json.loads(line))
            else:
                data = os.read(self.reader, 2**20)
                assert data, "it ended before"
                self._read = line + data
        return lines

    def close(self) -> None:
        super().close()
        os.close(self.reader)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[UnreadServer]:
    server = UnreadServer(tmp_path, handlers=HANDLERS, drain_timeout=5)
    server.start()
    yield server
    server.close()


async def shout(server: UnreadServer) -> None:
    async with online(server.url) as client:
        await client.request("a", "shout", params={"count": LINES, "size": LINE_BYTES})
        await client.next("done", "a")
        for name in map(str, range(20)):
            await client.request(name, "echo", params={"text": name})
            await client.next("done", name)


async def test_a_server_whose_log_nobody_reads_serves_on_and_counts_what_is_lost(
    server: UnreadServer,
) -> None:
    await shout(server)
    lines = await asyncio.to_thread(server.read_until, "log_lines_dropped")
    kept = [line["number"] for line in lines if line["event"] == "shout"]
    assert kept == list(range(len(kept)))
    # What else it had to say: one line about the connection that was lost.
    assert lines[-1]["count"] - (LINES - len(kept)) in {0, 1}
    assert len(kept) < LINES
    async with online(server.url):
        lines = await asyncio.to_thread(server.read_until, "connection_opened")
    assert lines[-1]["subject"] == "alice"


async def test_a_server_whose_log_nobody_reads_stops_in_good_order(server: UnreadServer) -> None:
    await shout(server)
    assert await asyncio.to_thread(server.terminate) == 0


async def test_what_was_said_right_before_a_crash_is_in_the_log(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, handlers=HANDLERS)
    await server.astart()
    async with online(server.url) as client:
        await client.request("a", "last_words")
        assert server.process is not None
        await asyncio.to_thread(server.process.wait)
    assert json.loads(server.log.read_text().splitlines()[-1])["event"] == "last_words"
