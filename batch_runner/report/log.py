"""The log of a run: everything it prints, appended to a file with the time of each line.

Hides the file. What always holds: each line is written at once, in one piece, with its time in UTC;
earlier lines stay; after logrotate moves the file away, the next line begins a new one; if the disk
fails, that is reported once and the log ends, but the run does not stop or slow down. The lines are
those that a run prints without a terminal. Not promised: lines are not synced, so a power failure
may lose the last ones.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO, cast

from batch_runner.clock import Clock
from batch_runner.records import Record
from batch_runner.report.progress import Progress
from batch_runner.run.survey import Survey

# A message of the service may hold anything; shown on a terminal it must not move the cursor.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


class Log:
    """Writes the log. Use it as a context manager; call it with each record.

    Without a path it writes nothing. `complain` gets one message if the file fails.
    """

    def __init__(
        self, path: Path | None, name: str, *, complain: Callable[[str], None], clock: Clock
    ) -> None:
        self._lines = None if path is None else _Lines(path, complain, clock)
        # It writes the same lines as without a terminal.
        self._progress = Progress(name, cast("TextIO", self._lines))

    def __enter__(self) -> Self:
        if self._lines is not None:
            self._lines.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.__exit__(kind, error, trace)
        if self._lines is not None:
            self._lines.finish()

    def begin(self, survey: Survey) -> None:
        """Log how many jobs are done, now and every half minute."""
        if self._lines is not None:
            self._progress.begin(survey)

    def __call__(self, record: Record) -> None:
        """Log a record, if it is a failure."""
        if self._lines is not None:
            self._progress(record)

    def say(self, message: str) -> None:
        """Log a message; each of its lines gets the time."""
        if self._lines is not None:
            self._progress.say(message)


class _Lines(io.TextIOBase):
    """A text stream that is no terminal: appends each line to the file with its time."""

    def __init__(self, path: Path, complain: Callable[[str], None], clock: Clock) -> None:
        self._path = path
        self._complain = complain
        self._clock = clock
        self._file: int | None = None

    def begin(self) -> None:
        try:
            self._open()
        except OSError as error:
            self._end(error)

    def finish(self) -> None:
        if self._file is not None:
            # Some file systems report a failed write only here.
            file, self._file = self._file, None
            with contextlib.suppress(OSError):
                os.close(file)

    def write(self, text: str) -> int:
        stamp = f"{self._clock.now():%Y-%m-%dT%H:%M:%SZ}"
        for line in text.split("\n"):
            if line.strip():
                self._append(f"{stamp} {_CONTROL.sub(_escaped, line.rstrip())}\n")
        return len(text)

    def _append(self, line: str) -> None:
        if self._file is None:
            return
        raw = line.encode(errors="backslashreplace")
        try:
            self._follow_rotation()
            if os.write(self._file, raw) < len(raw):
                raise OSError(None, "the disk took only a part of a line")
        except OSError as error:
            self._end(error)

    def _follow_rotation(self) -> None:
        """Open a new file if logrotate, or a person, has moved this one away."""
        if self._file is None:
            return
        try:
            if os.path.samestat(os.stat(self._path), os.fstat(self._file)):  # noqa: PTH116 - per line
                return
        except FileNotFoundError:
            pass
        old, self._file = self._file, None
        os.close(old)
        self._open()

    def _open(self) -> None:
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def _end(self, error: OSError) -> None:
        self.finish()
        why = error.strerror or type(error).__name__
        self._complain(f"cannot write to the log {self._path} any more: {why}; the run continues")


def _escaped(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]
