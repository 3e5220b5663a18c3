"""Writing for people and pipes: output that never holds up the work.

Hides that a terminal can be closed or held and that the reader of a pipe can stop or leave, and the
thread that writes meanwhile. What always holds: writing to stderr never raises, and drops the rest
after the first failure; in the background nothing waits for a reader (a pager that is stopped, a
terminal held with Ctrl-S), so no paid call is delayed; pieces come out whole and in order. Not
promised: that anyone reads them. Imports nothing heavy, because every command prints something.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Iterator
from typing import TextIO

UNREAD_LIMIT_BYTES = 256 * 1024
"""Text for people is dropped while this much of it is unread."""

_LAST_WORDS_S = 2.0


class BackgroundWriter:
    """Writes to a stream from a thread; directly, if the stream is not a real file.

    `error` is why nothing more can be written: the reader has left, or the disk is full.
    """

    def __init__(self, stream: TextIO) -> None:
        self.error: OSError | None = None
        self._stream = stream
        self._pieces: queue.SimpleQueue[bytes] = queue.SimpleQueue()  # an empty one is the end
        self._put_bytes = self._written_bytes = 0
        self._thread: threading.Thread | None = None

    @property
    def waiting_bytes(self) -> int:
        """Return how much is still unread."""
        return 0 if self.error is not None else self._put_bytes - self._written_bytes

    def put(self, piece: bytes) -> None:
        """Queue a piece; returns at once."""
        if not piece or self.error is not None:
            return
        if self._thread is None:
            try:
                self._stream.flush()
                # A copy: the stream may be redirected or closed while the thread still writes.
                descriptor = os.dup(self._stream.fileno())
            except (OSError, ValueError):
                with contextlib.suppress(ValueError):  # the stream was closed
                    self._stream.write(piece.decode(errors="replace"))
                    self._stream.flush()
                return
            # A daemon: a reader that never comes must not keep the process alive.
            work = (descriptor,)
            self._thread = threading.Thread(target=self._work, args=work, daemon=True)
            self._thread.start()
        self._put_bytes += len(piece)
        self._pieces.put(piece)

    def finish(self, timeout_s: float | None = None) -> bool:
        """Wait until everything is written; returns False if the time ran out first. Blocks."""
        if self._thread is None:
            return True
        self._pieces.put(b"")
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self, descriptor: int) -> None:
        try:
            while piece := self._pieces.get():
                rest = memoryview(piece)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
                self._written_bytes += len(piece)
        except OSError as error:
            self.error = error
        finally:
            os.close(descriptor)


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
            # If not: anything written later would wait for the same reader.
            self._is_gone = not writer.finish(_LAST_WORDS_S)

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
