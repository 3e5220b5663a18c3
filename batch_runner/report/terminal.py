"""Writing for people and pipes: lines that fit the terminal, output that never holds up the work.

Hides that a terminal can be closed or held and that the reader of a pipe can stop or leave, and the
thread that writes meanwhile. What always holds: writing to stderr never raises, and drops the rest
after the first failure; in the background nothing waits for a reader (a pager that is stopped, a
terminal held with Ctrl-S), so no paid call is delayed; pieces come out whole and in order. Not
promised: that anyone reads them. Imports nothing heavy, because every command prints something.
"""

from __future__ import annotations

import contextlib
import os
import textwrap
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TextIO

UNREAD_LIMIT_BYTES = 256 * 1024
"""Text for people is dropped while this much of it is unread."""

_LAST_WORDS_S = 2.0
_NARROWEST = 40
_PIECE_BYTES = 64 * 1024


class BackgroundWriter:
    """Writes to a stream from a thread; directly, if the stream is not a real file."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._on_gone: Callable[[OSError], None] = _ignore
        self._pieces: deque[bytes] = deque()
        self._news = threading.Condition()
        self._waiting_bytes = 0
        self._is_ending = False
        self._is_gone = False
        self._thread: threading.Thread | None = None
        self._descriptor: int | None = None
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
            # A copy: the stream itself may be redirected or closed while the thread still writes.
            self._descriptor = os.dup(stream.fileno())

    def __repr__(self) -> str:
        return f"BackgroundWriter({self._waiting_bytes} bytes waiting)"

    @contextlib.contextmanager
    def watched(self, on_gone: Callable[[OSError], None]) -> Iterator[None]:
        """Call `on_gone`, from the thread that writes, if the reader leaves during the block."""
        with self._news:
            self._on_gone = on_gone
        try:
            yield
        finally:
            with self._news:
                self._on_gone = _ignore

    @property
    def waiting_bytes(self) -> int:
        """Return how much is still unread."""
        return self._waiting_bytes

    def put(self, piece: bytes) -> None:
        """Queue a piece; returns at once."""
        if not piece:
            return  # progress bars write empty pieces, and the thread would take one for the end
        if self._descriptor is None:
            self._write_directly(piece)
            return
        with self._news:
            if self._is_gone:
                return
            self._pieces.append(piece)
            self._waiting_bytes += len(piece)
            self._news.notify_all()
        if self._thread is None:
            # A daemon: a reader that never comes must not keep the process alive.
            self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
            self._thread.start()

    def finish(self, timeout_s: float | None = None) -> bool:
        """Wait until everything is written; returns False if the time ran out first. Blocks."""
        with self._news:
            self._is_ending = True
            self._news.notify_all()
        if self._thread is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                return False
        elif self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        return True

    def _write_directly(self, piece: bytes) -> None:
        try:
            self._stream.write(piece.decode(errors="replace"))
            self._stream.flush()
        except OSError as error:
            self._on_gone(error)
        except ValueError:
            return  # the stream was closed

    def _work(self) -> None:
        descriptor = self._descriptor
        if descriptor is None:
            return
        try:
            while piece := self._next():
                rest = memoryview(piece)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
                with self._news:
                    self._waiting_bytes -= len(piece)
        except OSError as error:
            with self._news:
                self._is_gone = True
                self._pieces.clear()
                self._waiting_bytes = 0
                # Under the lock, so that nothing is called once `watched` has ended.
                self._on_gone(error)
        finally:
            os.close(descriptor)

    def _next(self) -> bytes:
        """Wait for pieces and join some of them; returns b"" at the end."""
        with self._news:
            while not self._pieces and not self._is_ending:
                self._news.wait()
            taken, size_bytes = [], 0
            while self._pieces and size_bytes < _PIECE_BYTES:
                taken.append(self._pieces.popleft())
                size_bytes += len(taken[-1])
        return b"".join(taken)


class SteadyStream:
    """Wraps stderr: its reader may stop or leave, and jobs that are paid for go on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_gone = False
        self._writer: BackgroundWriter | None = None
        self.encoding = stream.encoding

    @contextlib.contextmanager
    def in_background(self) -> Iterator[None]:
        """Write without waiting during the block; at its end, wait a moment for the rest."""
        self._writer = BackgroundWriter(self._stream)
        try:
            yield
        finally:
            writer, self._writer = self._writer, None
            if not writer.finish(_LAST_WORDS_S):
                # Anything written later would wait for the same reader.
                self._is_gone = True

    def write(self, text: str) -> int:
        """Write, unless the reader is gone."""
        if self._writer is not None:
            if self._writer.waiting_bytes < UNREAD_LIMIT_BYTES:
                self._writer.put(text.encode(self.encoding, errors="backslashreplace"))
        elif not self._is_gone:
            try:
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError):
                self._is_gone = True
        return len(text)

    def flush(self) -> None:
        """Do nothing: every write is flushed."""

    def isatty(self) -> bool:
        """Tell whether the stream is a terminal."""
        try:
            return self._stream.isatty()
        except ValueError:
            return False

    def fileno(self) -> int:
        """Return the descriptor, which gives a progress bar the terminal's width."""
        return self._stream.fileno()


def in_background(stream: TextIO) -> contextlib.AbstractContextManager[None]:
    """Let a SteadyStream write without waiting during the block; others stay as they are."""
    if isinstance(stream, SteadyStream):
        return stream.in_background()
    return contextlib.nullcontext()


def wrapped(text: str, stream: TextIO) -> str:
    """Break lines between words at the terminal's width; commands stay whole, to be copied."""
    try:
        width = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return text
    return "\n".join(_wrapped_line(line, width) for line in text.split("\n"))


def _wrapped_line(line: str, width: int) -> str:
    if len(line) <= width or width < _NARROWEST or "batch-runner " in line:
        return line
    return textwrap.fill(
        line,
        width,
        subsequent_indent=" " * (len(line) - len(line.lstrip()) + 2),
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
    )


def _ignore(_: OSError) -> None:
    """Stand in while nobody watches."""
