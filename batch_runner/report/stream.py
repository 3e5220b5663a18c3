"""A stream for people that never stands in the way of the work.

Hides that a terminal can be closed or held and a pipe's reader can stop or go away. What always
holds: writing never raises; after the first failure the rest is dropped in silence; in the
background it never waits either, and what a reader who has stopped leaves unread is dropped.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from batch_runner.report.outlet import Outlet

UNREAD_LIMIT_BYTES = 256 * 1024
_LAST_WORDS_S = 2.0


class SteadyStream:
    """Wraps stderr: whoever reads it may stop or leave, and jobs that are paid for go on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_gone = False
        self._outlet: Outlet | None = None
        self.encoding = stream.encoding

    @contextmanager
    def in_background(self) -> Iterator[None]:
        """Write without waiting while the block lasts; at its end, wait a moment for the rest."""
        from batch_runner.report.outlet import Outlet  # noqa: PLC0415 - only a run needs a thread

        self._outlet = Outlet(self._stream)
        try:
            yield
        finally:
            outlet, self._outlet = self._outlet, None
            if not outlet.finish(_LAST_WORDS_S):
                # Whatever is written after it would wait for the same reader.
                self._is_gone = True

    def write(self, text: str) -> int:
        """Write if anybody is left to read."""
        if self._outlet is not None:
            if self._outlet.waiting_bytes < UNREAD_LIMIT_BYTES:
                self._outlet.put(text.encode(self.encoding, errors="backslashreplace"))
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
        """Return the descriptor, by which a progress bar learns the terminal's width."""
        return self._stream.fileno()


def in_background(stream: TextIO) -> AbstractContextManager[None]:
    """Let a stream write without waiting while the block lasts, if it knows how to."""
    return stream.in_background() if isinstance(stream, SteadyStream) else nullcontext()
