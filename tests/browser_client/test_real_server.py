"""The browser client at the real server, which is killed under it, and in pages that are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser_client.node import Page
from tests.server_process import ServerProcess, token

WORDS = [str(number) for number in range(30)]
LATE = WORDS[-2]
"""What is seen of a stream before its gate is open."""


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server for all tests of this module; some kill it and start it again."""
    directory = tmp_path_factory.mktemp("server")
    server = ServerProcess(directory, handlers="tests.integration.handlers:handlers")
    server.start()
    yield server
    server.close()


class Gate:
    """A stream that ends when it is open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        params = {"text": " ".join(WORDS), "gate": str(path)}
        self.stream = {"method": "words_and_gate", "params": params, "id": "stream"}

    def open(self) -> None:
        self._path.touch()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def page(server: ServerProcess, *requests: dict[str, Any], **more: Any) -> Page:
    return Page("page.js", {"url": server.url, "token": token(), "requests": requests} | more)


async def until(tab: Page, result: str) -> list[dict[str, Any]]:
    """Return what a page says up to this result."""
    said: list[dict[str, Any]] = []
    async for line in tab:
        said.append(line)
        if line.get("result") == result:
            break
    return said


async def rest(tab: Page) -> list[dict[str, Any]]:
    """Return what a page says up to its end."""
    return [line async for line in tab]


def results(said: list[dict[str, Any]], name: str) -> list[Any]:
    return [line["result"] for line in said if line.get("id") == name and "result" in line]


def ends(said: list[dict[str, Any]]) -> dict[str, str]:
    return {line["id"]: line["end"] for line in said if "end" in line}


async def test_a_stream_survives_the_server_being_killed(real: ServerProcess, gate: Gate) -> None:
    async with page(real, gate.stream) as tab:
        said = await until(tab, LATE)
        await real.restart()
        gate.open()
        said += await rest(tab)
    assert results(said, "stream") == WORDS
    assert {"id": "stream", "end": "done", "n": 1, "attempt": 2} in said
    assert {"event": "resumed"} in said


async def test_requests_survive_the_server_being_killed_again_and_again(
    real: ServerProcess,
) -> None:
    count = 200
    requests = [{"method": "echo", "params": {"text": n}, "id": str(n)} for n in range(count)]
    said: list[dict[str, Any]] = []
    async with page(real, *requests) as tab:
        async for line in tab:
            said.append(line)
            if line.get("end") and len(ends(said)) in {1, 100}:
                await real.restart()
    assert all(results(said, str(n)) == [n] for n in range(count))
    assert ends(said) == {str(n): "done" for n in range(count)}
    # They ran in the order in which they were made.
    assert all(line["n"] == int(line["id"]) + 1 for line in said if "end" in line)


async def test_a_page_that_is_loaded_again_goes_on(
    real: ServerProcess, gate: Gate, tmp_path: Path
) -> None:
    storage = str(tmp_path / "storage")
    later = {"method": "echo", "params": {"text": "x"}, "id": "later"}
    async with page(real, gate.stream, later, storage=storage) as tab:
        await until(tab, LATE)
    async with page(real, storage=storage) as tab:
        said = await until(tab, LATE)
        gate.open()
        said += await rest(tab)
    assert results(said, "stream") == WORDS
    assert results(said, "later") == ["x"]
    assert ends(said) == {"stream": "done", "later": "done"}


async def test_a_page_that_is_loaded_again_while_the_server_is_killed_goes_on(
    real: ServerProcess, gate: Gate, tmp_path: Path
) -> None:
    storage = str(tmp_path / "storage")
    async with page(real, gate.stream, storage=storage) as tab:
        await until(tab, LATE)
    await real.restart()
    gate.open()
    async with page(real, storage=storage) as tab:
        said = await rest(tab)
    assert results(said, "stream") == WORDS
    assert {"id": "stream", "end": "done", "n": 1, "attempt": 2} in said


async def test_of_two_pages_with_one_storage_the_newer_has_the_session(
    real: ServerProcess, gate: Gate, tmp_path: Path
) -> None:
    storage = tmp_path / "storage"
    async with page(real, gate.stream, storage=str(storage)) as older:
        await until(older, LATE)
        # A tab that is duplicated has a copy of the storage.
        copy = tmp_path / "copy"
        copy.write_text(storage.read_text())
        async with page(real, storage=str(copy)) as newer:
            left = await rest(older)
            gate.open()
            said = await rest(newer)
    assert [line["event"] for line in left if "event" in line] == ["taken-over", "closed"]
    assert results(said, "stream") == WORDS
    assert [line["event"] for line in said if "event" in line] == ["closed"]
    assert storage.read_text() == "{}"


async def test_the_server_answers_when_it_is_asked_whether_it_is_there(
    real: ServerProcess,
) -> None:
    request = {"method": "echo", "params": {"text": "x"}, "id": "after"}
    async with page(real, request, probe=True) as tab:
        said = await rest(tab)
    assert {"event": "refreshed"} in said
    assert ends(said) == {"after": "done"}


async def test_a_token_that_is_refused_fails_the_connection(real: ServerProcess) -> None:
    async with page(real, token="not.a.token") as tab:
        with pytest.raises(AssertionError, match=r"(?s)unauthenticated.*code: 4501"):
            await rest(tab)
