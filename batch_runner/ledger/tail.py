"""A ledger that another process is writing, read as it grows, like `tail -f`.

Hides files that do not exist yet, lines that are half written, and ledgers that were replaced. What
always holds: each complete line is given once, in order; a line without its end waits, because it
may be cut off again; nothing is locked, held open or changed.
Not promised: that what was read is on the disk. Its writer may sync it later.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from batch_runner.errors import StorageError
from batch_runner.ledger.reading import Located, decode_line

READ_BYTES = 1024 * 1024


class Replaced(Exception):  # noqa: N818 - it is news, not an error
    """Another ledger has taken this one's place: what was read from it no longer holds."""


class Tail:
    """Follows one ledger."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._header = b""
        self._offset_bytes = 0
        self._number = 0

    def read(self) -> Iterator[Located]:
        """Yield the lines that were completed since the last call.

        Raises Replaced, LedgerDamagedError or StorageError.
        """
        try:
            file = self.path.open("rb", buffering=READ_BYTES)
        except FileNotFoundError:
            if self._offset_bytes:
                raise Replaced from None
            return
        except OSError as error:
            raise StorageError(
                f"{self.path}: cannot be read: {error.strerror}",
                hint="check its permissions and the disk; the run itself is not affected",
            ) from error
        with file:
            # Another ledger has another header, which says when it was begun.
            size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes < self._offset_bytes or file.read(len(self._header)) != self._header:
                raise Replaced
            if size_bytes == self._offset_bytes:
                return
            file.seek(self._offset_bytes)
            for line in file:
                if not line.endswith(b"\n") or b"\0" in line:
                    return
                self._number += 1
                record = decode_line(self.path, self._number, line)
                offset_bytes = self._offset_bytes
                self._offset_bytes += len(line)
                self._header = self._header or line
                yield Located(record, offset_bytes, self.path, self._number)
