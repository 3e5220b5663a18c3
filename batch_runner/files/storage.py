"""What every place for saved files promises: a folder of this machine, or a bucket.

What always holds, in each of them: a file gets its final name only when it is whole and synced; a
file that is in the way is moved aside, never overwritten; nothing is written outside the folder or
prefix. Every method blocks, and is called in threads.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from batch_runner.errors import BatchRunnerError
from batch_runner.files import disk
from batch_runner.records import SavedFile

_T = TypeVar("_T")
_U = TypeVar("_U")

# After these errors of a disk no other file can be saved either.
_FATAL_ERRNOS = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENODEV, errno.ESTALE)
)


class NotSavedError(Exception):
    """One file could not be put in its place; trying again is free.

    `reason` is the same for all files that meet the same problem. `is_lasting`: trying again will
    probably fail too.
    """

    def __init__(
        self, message: str, *, reason: str = "", hint: str | None = None, is_lasting: bool = False
    ) -> None:
        super().__init__(message)
        self.reason = reason or "not saved"
        self.hint = hint
        self.is_lasting = is_lasting


class Whole(NamedTuple):
    """A small file that arrived whole: where it goes, what it is, and its content."""

    path: str
    media_type: str
    body: bytes

    def described(self) -> SavedFile:
        """Return what the ledger will record of it."""
        return SavedFile(
            path=self.path,
            size_bytes=len(self.body),
            sha256=hashlib.sha256(self.body).hexdigest(),
            media_type=self.media_type,
        )


class Storage(Protocol):
    """Where the files of a batch are kept; people are shown its `str()`.

    Paths are relative, with `/` between folders. Each method raises NotSavedError if the problem is
    one file's, and StorageError or AccessRefusedError if nothing more can be saved.
    """

    threads: int
    """How many files are written at a time."""

    def prepare(self, stems: Iterable[str] = ()) -> bool:
        """Try to keep files here, under paths such as these, before anything is paid for.

        Returns False if a power failure may lose files; raises StorageError.
        """

    def unfinished(self, path: str) -> AbstractContextManager[str]:
        """Give the path of a local file to write a large file to, until it is whole."""

    def put_in_place(self, unfinished: str, saved: SavedFile) -> None:
        """Give the content of `unfinished` its final name."""

    def save_whole(self, files: Sequence[Whole]) -> list[SavedFile | Exception]:
        """Save small files together; returns the result for each."""

    def reuse(self, source: SavedFile, path: str) -> SavedFile:
        """Give a saved file a second name; raises NotSavedError if the file has changed."""

    def is_in_place(self, path: str, saved: SavedFile, *, thorough: bool) -> bool:
        """Return whether `path` is this saved file: by its size, or thoroughly by its hash."""

    def standing(self, stem: str) -> str | None:
        """Return the file at a path without extension, if that is known."""

    def sha256(self, path: str) -> str | None:
        """Read a file and return its SHA-256 (hex); None if it cannot be read."""


def each(step: Callable[[_T], _U], ones: Iterable[_T | Exception]) -> list[_U | Exception]:
    """Take each a step further; one that fails, or failed before, does not stop the others."""
    results: list[_U | Exception] = []
    for one in ones:
        try:
            results.append(one if isinstance(one, Exception) else step(one))
        except (OSError, NotSavedError, BatchRunnerError) as error:
            results.append(error)
    return results


def disk_error(path: str, error: OSError) -> Exception:
    """Return a StorageError if the disk failed (the run ends), or NotSavedError for one file."""
    if error.errno in _FATAL_ERRNOS:
        return disk.storage_error(Path(path), error)
    why, hint = error.strerror or str(error), None
    if error.errno in (errno.EACCES, errno.EPERM):
        folder = os.path.dirname(path)  # noqa: PTH120 - `path` may be a bucket's
        hint = f"let this user write in {folder}, then run the command again"
    return NotSavedError(f"{path}: {why}", reason=why, hint=hint)
