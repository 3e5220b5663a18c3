"""A command in a terminal, as a person has it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

from command import COMMAND

COLUMNS, ROWS = 80, 24


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, *words: str, columns: int = COLUMNS, **environment: str) -> None:
        self.raw = b""
        self._master, slave = pty.openpty()
        self.resize(columns)
        env = {**os.environ, "TERM": "xterm", **environment}
        # Workers of pytest-xdist set it, and it counts more than the terminal's own size.
        env.pop("COLUMNS", None)
        self.process = subprocess.Popen(
            [*COMMAND, *words], stdin=slave, stdout=slave, stderr=slave, env=env
        )
        os.close(slave)

    def resize(self, columns: int) -> None:
        size = struct.pack("HHHH", ROWS, columns, 0, 0)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def read_until(self, words: str) -> None:
        deadline = time.monotonic() + 60
        while words not in self.text:
            assert time.monotonic() < deadline, self.text
            if not self._read():
                raise AssertionError(f"it ended without {words!r}: {self.text}")

    def _read(self) -> bool:
        if not select.select([self._master], [], [], 60)[0]:
            return False
        try:
            piece = os.read(self._master, 65536)
        except OSError:  # nobody holds the other end any more
            return False
        self.raw += piece
        return bool(piece)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    @property
    def text(self) -> str:
        """All that was written, without colours."""
        return re.sub("\x1b\\[[0-9;]*m", "", self.raw.decode(errors="replace"))

    def end(self, number: signal.Signals | None = None) -> int:
        if number is not None:
            self.process.send_signal(number)
        while self._read():
            pass
        os.close(self._master)
        return self.process.wait(timeout=240)
