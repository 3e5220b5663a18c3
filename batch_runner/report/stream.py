"""A stream for people that never stands in the way of the work.

Hides that a terminal can be closed and a pipe's reader can go away. What always holds: writing
never raises; after the first failure the rest is dropped in silence.
"""

from __future__ import annotations

from typing import TextIO


class SteadyStream:
    """Wraps stderr: whoever reads it may leave, and jobs that are paid for go on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_gone = False
        self.encoding = stream.encoding

    def write(self, text: str) -> int:
        """Write if anybody is left to read."""
        if not self._is_gone:
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
