"""A short run of the socket fuzzer; `scripts/fuzz.py socket` is the long one."""

from pathlib import Path

from scripts.fuzzing.socket_fuzz import run

MESSAGES = 20_000


async def test_a_server_withstands_hostile_messages_while_clients_work(tmp_path: Path) -> None:
    said: list[str] = []
    report = await run(tmp_path, MESSAGES, "tests", said.append)
    assert not report.problems, "\n".join([report.text(), *said[-10:]])
    assert report.messages >= MESSAGES
    assert report.checked
