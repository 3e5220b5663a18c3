"""Output whose reader may be slow, stopped or gone: written by a thread, never waited for.

Hides that thread and its queue. What always holds: `put` returns at once, whatever the reader does,
so that a stopped pager or a terminal that is held (Ctrl-S) delays no call that is paid for; pieces
come out whole and in order; none is dropped while the reader lives. Where a stream is no real file
it is written to directly. Not promised: that anybody reads it; `finish` says whether all got out.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TextIO

_PIECE_BYTES = 64 * 1024


class Outlet:
    """One stream's way out."""

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
            # Of its own: whoever redirects the stream later redirects what comes after.
            self._descriptor = os.dup(stream.fileno())

    def __repr__(self) -> str:
        return f"Outlet({self._waiting_bytes} bytes waiting)"

    @contextlib.contextmanager
    def watched(self, on_gone: Callable[[OSError], None]) -> Iterator[None]:
        """While the block lasts, tell when nobody reads any more: from the thread that writes."""
        with self._news:
            self._on_gone = on_gone
        try:
            yield
        finally:
            with self._news:
                self._on_gone = _ignore

    @property
    def waiting_bytes(self) -> int:
        """Return how much nobody has read so far."""
        return self._waiting_bytes

    def put(self, piece: bytes) -> None:
        """Take a piece; it is written when the reader is ready."""
        if not piece:
            return  # a progress bar writes such, and to the thread nothing would be the end
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
            # A daemon: a reader that never comes must not keep the process from ending.
            self._thread = threading.Thread(target=self._work, name="outlet", daemon=True)
            self._thread.start()

    def finish(self, timeout_s: float | None = None) -> bool:
        """Wait until all is written; False where the time was up before. Blocks."""
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
            return  # it was closed: nobody wants it

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
                # Under the lock: nobody is told once it is no longer wanted.
                self._on_gone(error)
        finally:
            os.close(descriptor)

    def _next(self) -> bytes:
        """Return what waits, up to some size; nothing at the end."""
        with self._news:
            while not self._pieces and not self._is_ending:
                self._news.wait()
            taken, size_bytes = [], 0
            while self._pieces and size_bytes < _PIECE_BYTES:
                taken.append(self._pieces.popleft())
                size_bytes += len(taken[-1])
        return b"".join(taken)


def _ignore(_: OSError) -> None:
    """Stand in for somebody who wants to know."""
