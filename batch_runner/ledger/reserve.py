"""Disk space reserved for records that must still be written when the disk is full.

Hides a file of 64 KiB beside the ledger. What always holds: it is written before the first submit,
so a disk that is full already stops a run before anything is bought; it is freed in small pieces,
one for each record that needs it, so that other programs cannot take it all at once.
Not promised: that a freed piece is still free a moment later, or that every file system frees it at
once.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from batch_runner.files.disk import write_all

FILE_NAME = ".ledger.reserve"

SIZE_BYTES = 64 * 1024
_PIECE_BYTES = 4096


class Reserve:
    """The reserved space in one folder; raises OSError if the disk has less."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._left_bytes = SIZE_BYTES
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o600)
        try:
            # Random bytes: zeros take no space on a file system that compresses.
            write_all(self._descriptor, os.urandom(SIZE_BYTES))
        except BaseException:
            self.close()
            raise

    def give_back(self) -> bool:
        """Free the next piece; False if none is left."""
        if self._left_bytes == 0:
            return False
        self._left_bytes -= _PIECE_BYTES
        try:
            os.ftruncate(self._descriptor, self._left_bytes)
        except OSError:
            self._left_bytes = 0
            return False
        return True

    def close(self) -> None:
        """Free all of it."""
        os.close(self._descriptor)
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
