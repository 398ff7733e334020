"""Whoever logs never waits: a real pipe that is full, read late, or closed."""

import os
import select
import threading
from collections.abc import Iterator

import pytest

from server.log_writer import BACKLOG_BYTES_MAX, LineWriter

SOON_SECONDS = 30


class Pipe:
    """A writer whose other end the test reads, or not."""

    def __init__(self) -> None:
        self.reader, self._end = os.pipe()
        self.writer = LineWriter(self._end, lambda count: f"dropped {count}\n")

    def fill(self) -> None:
        """Write until the pipe takes no more."""
        while not self.writer._draining:
            self.writer.write("filling\n")

    def read_on(self) -> list[str]:
        """Read as long as something is there or kept; return the lines."""
        data = b""
        while self.writer._draining or select.select([self.reader], [], [], 0)[0]:
            if select.select([self.reader], [], [], 0.01)[0]:
                data += os.read(self.reader, 2**20)
        return data.decode().splitlines()

    def stop_reading(self) -> None:
        os.close(self.reader)
        self.reader = -1

    def close(self) -> None:
        if self.reader >= 0:
            self.stop_reading()
        self.writer.flush(SOON_SECONDS)  # its thread gives up
        for descriptor in {self._end, self.writer._descriptor}:
            os.close(descriptor)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def test_a_line_is_in_the_pipe_before_write_returns(pipe: Pipe) -> None:
    """So it is there even if the process dies next: it is no thread that writes it."""
    threads = threading.active_count()
    pipe.writer.write("last words\n")
    assert os.read(pipe.reader, 100) == b"last words\n"
    assert threading.active_count() == threads


def test_a_long_line_comes_whole(pipe: Pipe) -> None:
    line = "x" * 300_000
    pipe.writer.write(f"{line}\n")
    assert pipe.read_on() == [line]


def test_what_a_full_pipe_does_not_take_comes_later_and_in_order(pipe: Pipe) -> None:
    pipe.fill()
    wanted = [f"line {number}" for number in range(1000)]
    for line in wanted:
        pipe.writer.write(f"{line}\n")
    lines = pipe.read_on()
    assert [line for line in lines if line != "filling"] == wanted
    assert pipe.writer.dropped == 0


def test_a_full_backlog_drops_lines_and_says_how_many(pipe: Pipe) -> None:
    pipe.fill()
    count = BACKLOG_BYTES_MAX // 100
    for number in range(2 * count):
        pipe.writer.write(f"{number:99}\n")
    dropped = pipe.writer.dropped
    numbers = [line for line in pipe.read_on() if line != "filling"]
    assert numbers[-1] == f"dropped {dropped}"
    assert [int(number) for number in numbers[:-1]] == list(range(2 * count - dropped))
    assert dropped >= count
    pipe.writer.write("again\n")
    assert pipe.read_on() == ["again"]


def test_memory_for_what_nobody_reads_is_bounded(pipe: Pipe) -> None:
    pipe.fill()
    for _ in range(100):
        pipe.writer.write("x" * 100_000 + "\n")
    assert sum(map(len, pipe.writer._backlog)) <= BACKLOG_BYTES_MAX


def test_lines_into_a_closed_pipe_are_dropped_and_counted(pipe: Pipe) -> None:
    pipe.stop_reading()
    for _ in range(10):
        pipe.writer.write("x\n")
    assert pipe.writer.dropped == 10


def test_a_pipe_that_is_closed_while_lines_wait_holds_up_nobody(pipe: Pipe) -> None:
    pipe.fill()
    pipe.writer.write("x\n")
    pipe.stop_reading()
    pipe.writer.flush(SOON_SECONDS)
    assert not pipe.writer._draining
    assert pipe.writer.dropped >= 1


def test_another_writer_that_fills_the_pipe_holds_up_nobody(pipe: Pipe) -> None:
    """It may do so between our look at the pipe and our write."""
    while select.select([], [pipe._end], [], 0)[1]:
        os.write(pipe._end, b"x" * select.PIPE_BUF)
    assert pipe.writer._write_piece(b"ours\n") == b"ours\n"
    assert os.get_blocking(pipe._end), "others that share it would not expect that"


def test_flush_waits_for_the_reader_but_not_for_ever(pipe: Pipe) -> None:
    pipe.fill()
    pipe.writer.flush(0.01)
    assert pipe.writer._draining
    reading = threading.Thread(target=pipe.read_on)
    reading.start()
    pipe.writer.flush(SOON_SECONDS)
    assert not pipe.writer._draining
    reading.join()


def test_lines_of_many_threads_stay_whole(pipe: Pipe) -> None:
    def write(name: int) -> None:
        for _ in range(200):
            pipe.writer.write(f"{name}" * 500 + "\n")

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    lines: list[str] = []
    while any(thread.is_alive() for thread in threads):
        lines += pipe.read_on() or [""]
    lines = [line for line in [*lines, *pipe.read_on()] if line]
    assert len(lines) + pipe.writer.dropped == 800
