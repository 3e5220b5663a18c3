"""Output whose reader is slow, stopped or gone: `put` never waits, and nothing is lost or mixed."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from batch_runner.report.terminal import (
    UNREAD_LIMIT_BYTES,
    BackgroundWriter,
    SteadyStream,
    in_background,
)

MUCH = 4 * 1024 * 1024


class Pipe:
    """A pipe: what is written into it, and a reader who begins when told to."""

    def __init__(self) -> None:
        self.reading, writing = os.pipe()
        self.stream: TextIO = open(writing, "w", encoding="utf-8")  # noqa: SIM115, PTH123

    def read_to_the_end(self) -> bytes:
        self.stream.close()
        pieces = []
        while piece := os.read(self.reading, 65536):
            pieces.append(piece)
        return b"".join(pieces)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.stream.close()
    os.close(pipe.reading)


def test_with_nobody_reading_all_is_taken_at_once_and_comes_out_whole_and_in_order(
    pipe: Pipe,
) -> None:
    writer = BackgroundWriter(pipe.stream)
    lines = [b"%d %s\n" % (number, b"x" * 1000) for number in range(MUCH // 1000)]
    for line in lines:
        writer.put(line)
    assert writer.waiting_bytes > MUCH // 2
    assert not writer.finish(0)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_to_the_end()))
    reader.start()
    assert writer.finish()
    reader.join()
    assert read[0] == b"".join(lines)
    assert writer.waiting_bytes == 0


def test_an_empty_piece_is_not_the_end(pipe: Pipe) -> None:
    writer = BackgroundWriter(pipe.stream)
    for piece in (b"before\n", b"", b"after\n"):
        writer.put(piece)
    assert writer.finish()
    assert pipe.read_to_the_end() == b"before\nafter\n"


def test_what_was_not_asked_to_be_written_leaves_no_thread_and_no_descriptor(pipe: Pipe) -> None:
    before = (threading.active_count(), len(list(Path("/proc/self/fd").iterdir())))
    assert BackgroundWriter(pipe.stream).finish()
    assert (threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))) == before


def test_a_reader_who_goes_away_is_known_and_nothing_waits_for_him(pipe: Pipe) -> None:
    writer = BackgroundWriter(pipe.stream)
    os.close(pipe.reading)
    writer.put(b"x" * MUCH)
    assert writer.finish()
    assert isinstance(writer.error, BrokenPipeError)
    writer.put(b"y")
    assert writer.waiting_bytes == 0
    pipe.reading = os.open(os.devnull, os.O_RDONLY)


def test_a_stream_that_is_no_file_is_written_to_directly() -> None:
    stream = io.StringIO()
    writer = BackgroundWriter(stream)
    writer.put("sku-1 ✓\n".encode())
    assert stream.getvalue() == "sku-1 ✓\n"
    assert writer.finish()
    stream.close()
    writer.put(b"nobody wants it")


def test_in_the_background_a_held_terminal_delays_nothing_and_keeps_its_first_words(
    pipe: Pipe,
) -> None:
    steady = SteadyStream(pipe.stream)
    read: list[bytes] = []
    with steady.in_background():
        for number in range(2000):
            steady.write(f"{number} {'x' * 1000}\n")
        reader = threading.Thread(target=lambda: read.append(os.read(pipe.reading, 1024)))
        reader.start()
        reader.join()
        rest = threading.Thread(target=lambda: read.append(pipe.read_to_the_end()))
        rest.start()
    rest.join()
    text = b"".join(read).decode()
    assert text.startswith("0 xxx")
    assert text.endswith("\n")
    # What nobody reads is not kept for ever.
    assert len(text) < UNREAD_LIMIT_BYTES + 200_000


def test_after_the_background_a_stream_is_written_to_as_before(pipe: Pipe) -> None:
    stream: TextIO = SteadyStream(pipe.stream)  # type: ignore[assignment]  # as in cli
    with in_background(stream):
        stream.write("behind\n")
    stream.write("before\n")
    assert pipe.read_to_the_end() == b"behind\nbefore\n"
    plain = io.StringIO()
    with in_background(plain):
        plain.write("as ever")
    assert plain.getvalue() == "as ever"
