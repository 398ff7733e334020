"""scripts/checking/history.py and scripts/check.py: written, read, and told on the command line."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from msgspec.json import encode

from scripts.checking.history import (
    SWAPPED_MAX,
    HistoryError,
    Kill,
    Send,
    Stop,
    Writer,
    read,
    shortened,
    shortened_frame,
)
from tests.histories import Story

ROOT = Path(__file__).parents[2]


def write(path: Path, *lines: str) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


def kill(t: float, server: str) -> str:
    return f'{{"t":{t},"ev":"kill","server":"{server}"}}'


def servers(directory: Path) -> list[str]:
    return [event.server for event in read(directory) if isinstance(event, Kill | Stop)]


# Writing


def test_what_was_written_is_read(tmp_path: Path) -> None:
    frame = {"type": "ack", "seq": 1}
    with Writer(tmp_path, "client") as writer:
        writer.write("send", client="a", conn=1, frame=frame)
        writer.write("stop", server="s")
    send, stop = read(tmp_path)
    assert send == Send(t=send.t, client="a", conn=1, frame=frame)
    assert stop == Stop(t=stop.t, server="s")


def test_the_file_of_a_process_has_its_number(tmp_path: Path) -> None:
    with Writer(tmp_path, "client"):
        assert [path.name for path in tmp_path.iterdir()] == [f"client-{os.getpid()}.jsonl"]


def test_a_line_is_there_before_the_file_is_closed(tmp_path: Path) -> None:
    """Nothing is buffered in a process that may be killed."""
    with Writer(tmp_path, "s") as writer:
        writer.write("kill", server="s1")
        assert servers(tmp_path) == ["s1"]


def test_threads_write_whole_lines_in_order(tmp_path: Path) -> None:
    with Writer(tmp_path, "s") as writer:

        def write_many() -> None:
            for _ in range(200):
                writer.write("kill", server="s")

        threads = [threading.Thread(target=write_many) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    times = [event.t for event in read(tmp_path)]
    assert len(times) == 800
    assert times == sorted(times)


def test_a_forked_process_writes_its_own_file(tmp_path: Path) -> None:
    body = (
        "import os, sys; from pathlib import Path; from scripts.checking.history import Writer\n"
        "writer = Writer(Path(sys.argv[1]), 's')\n"
        "if os.fork() == 0:\n"
        "    writer.write('kill', server='child'); os._exit(0)\n"
        "os.wait(); writer.write('kill', server='parent')"
    )
    subprocess.run([sys.executable, "-c", body, str(tmp_path)], cwd=ROOT, check=True)
    assert len(list(tmp_path.iterdir())) == 2
    assert servers(tmp_path) == ["child", "parent"]


@pytest.mark.parametrize("value", [None, True, 1, 1.5, "short", {"k": [1, 2]}])
def test_short_values_are_kept(value: Any) -> None:
    assert shortened(value) == value


def test_a_long_value_becomes_its_hash_whatever_the_order_of_its_names() -> None:
    one = shortened({"a": "x" * 200, "b": 1})
    assert one == shortened({"b": 1, "a": "x" * 200})
    assert one != shortened({"a": "x" * 200, "b": 2})
    assert list(one) == ["sha"]


def test_a_frame_is_kept_without_its_token_and_long_data() -> None:
    frame = {"type": "hello", "token": "secret", "params": {"text": "x" * 200}, "data": "x" * 200}
    kept = shortened_frame(frame)
    assert set(kept) == {"type", "params", "data"}
    assert len(encode(kept)) < 200


# Reading


def test_files_are_merged_in_order_of_time(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", kill(1, "first"), kill(3, "third"))
    write(tmp_path / "b.jsonl", kill(2, "second"), kill(4, "fourth"))
    assert servers(tmp_path) == ["first", "second", "third", "fourth"]


def test_a_torn_last_line_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(kill(1, "first") + "\n" + kill(2, "second")[:-5])
    assert servers(tmp_path) == ["first"]


def test_lines_that_threads_have_swapped_are_put_in_order(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", kill(2, "second"), kill(1, "first"), kill(3, "third"))
    assert servers(tmp_path) == ["first", "second", "third"]


def test_a_line_far_behind_its_time_is_an_error(tmp_path: Path) -> None:
    late = [kill(t, "s") for t in range(2, SWAPPED_MAX + 10)]
    write(tmp_path / "a.jsonl", *late, kill(1, "s"))
    with pytest.raises(HistoryError, match=r"a\.jsonl:\d+: much earlier"):
        list(read(tmp_path))


@pytest.mark.parametrize("line", ["{", '{"ev":"kill","server":"s"}', '{"t":1,"ev":"other"}', ""])
def test_a_line_that_is_no_event_is_an_error(tmp_path: Path, line: str) -> None:
    write(tmp_path / "a.jsonl", kill(1, "s"), line, kill(2, "s"))
    with pytest.raises(HistoryError, match=r"a\.jsonl:2:"):
        list(read(tmp_path))


def test_fields_that_are_not_known_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", '{"t":1,"ev":"kill","server":"s","why":"because"}')
    assert servers(tmp_path) == ["s"]


def test_a_directory_without_a_history_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match=r"no \*\.jsonl"):
        read(tmp_path)


# The command line


def check(directory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/check.py", str(directory)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def save(story: Story, directory: Path) -> None:
    write(directory / "all.jsonl", *(encode(event).decode() for event in story.events))


def test_a_true_history_is_summed_up(tmp_path: Path) -> None:
    story = Story()
    a = story.client()
    a.whole("x", "item")
    story.crash()
    save(story, tmp_path)
    done = check(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    words = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert {"1 sessions", "1 accepted", "1 kills"} <= {" ".join(pair) for pair in words}
    assert done.stdout.endswith("no violation\n")


def test_a_violation_is_told_with_the_events_around_it(tmp_path: Path) -> None:
    story = Story()
    a, b = story.client("a"), story.client("b")
    a.whole("x", "item")
    b.whole("other", "elsewhere")
    a.ask("y")
    a.accept("y", n=7)
    save(story, tmp_path)
    done = check(tmp_path)
    assert done.returncode == 1
    assert "G3a is broken: `n` counts 1, 2, 3" in done.stdout
    assert "'y' is n 7, not 2" in done.stdout
    marked = [line for line in done.stdout.splitlines() if line.startswith(">")]
    assert len(marked) == 1
    assert '"n":7' in marked[0]
    assert "elsewhere" not in done.stdout


def test_a_history_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    done = check(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no *.jsonl files" in done.stderr
