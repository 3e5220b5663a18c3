"""Looking at a picture file of this machine before it is sent.

What always holds: nothing is decoded; a file that has not changed is read once; a file that is too
large for the service, cut off, or no picture is an error before anything is sent.
Not promised: that every pixel can be shown.
"""

from __future__ import annotations

import hashlib
import mmap
from functools import lru_cache
from pathlib import Path

import msgspec

from batch_runner.files.media import HEAD_BYTES, is_whole, recognise

SIZE_LIMIT_BYTES = 50 * 1000**2
"""The service accepts no larger pictures."""

_FILES_REMEMBERED = 1 << 16


class Examined(msgspec.Struct, frozen=True):
    """What is known of a picture file."""

    sha256: str
    extension: str
    size_bytes: int


class NotPictureError(Exception):
    """A file that the service would not accept as a picture; the text says why."""


def examine(path: Path) -> Examined:
    """Look at a file; raises NotPictureError, or OSError if it cannot be read."""
    found = path.stat()
    return _examine(path, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=_FILES_REMEMBERED)
def _examine(path: Path, mtime_ns: int, size_bytes: int) -> Examined:  # noqa: ARG001 - part of the cache's key
    if size_bytes > SIZE_LIMIT_BYTES:
        raise NotPictureError(too_large(size_bytes))
    if size_bytes == 0:
        raise NotPictureError("is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        recognised = recognise(data[:HEAD_BYTES])
        if recognised is None or not recognised[0].startswith("image/"):
            raise NotPictureError("is not a picture")
        media_type, extension = recognised
        if not is_whole(media_type, data):
            raise NotPictureError("is cut off")
        sha256 = hashlib.sha256(data).hexdigest()
    return Examined(sha256, extension, size_bytes)


def too_large(size_bytes: int) -> str:
    """Return the words for a picture that is too large for the service."""
    return (
        f"is {size_bytes / 1e6:.1f} MB; the service accepts at most {SIZE_LIMIT_BYTES // 10**6} MB"
    )
