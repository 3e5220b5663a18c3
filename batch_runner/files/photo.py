"""A picture file of this machine: what it is, by its content.

Hides Pillow where only a header is read. What always holds: nothing is decoded, and looking twice
at a file that did not change reads it once; what is larger than the service takes, or cut off, or
no picture at all, is an error before anything is sent. Not promised: that every pixel can be shown.
"""

from __future__ import annotations

import hashlib
import mmap
import warnings
from functools import lru_cache
from pathlib import Path

import msgspec

from batch_runner.files.media import HEAD_BYTES, is_whole, recognise

SIZE_LIMIT_BYTES = 50 * 1000**2
"""The service takes no larger pictures."""

_DRAWN_BY_PILLOW = frozenset(("image/png", "image/jpeg", "image/webp", "image/gif", "image/tiff"))
_ORIENTATION = 0x0112
_PHOTOS_REMEMBERED = 1 << 16


class Photo(msgspec.Struct, frozen=True):
    """What a picture file holds; `oddities` say in words what may come out unlike it looks."""

    sha256: str
    extension: str
    size_bytes: int
    oddities: tuple[str, ...] = ()


class PhotoError(Exception):
    """A file that is no picture the service takes; the text says why."""


def examine_photo(path: Path) -> Photo:
    """Look at a file; raises PhotoError, or OSError where it cannot be read."""
    found = path.stat()
    return _examine(path, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=_PHOTOS_REMEMBERED)
def _examine(path: Path, mtime_ns: int, size_bytes: int) -> Photo:  # noqa: ARG001 - part of the cache's key
    if size_bytes > SIZE_LIMIT_BYTES:
        raise PhotoError(too_large(size_bytes))
    if size_bytes == 0:
        raise PhotoError("is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        recognised = recognise(data[:HEAD_BYTES])
        if recognised is None or not recognised[0].startswith("image/"):
            raise PhotoError("is not a picture")
        media_type, extension = recognised
        if not is_whole(media_type, data):
            raise PhotoError("is cut off")
        sha256 = hashlib.sha256(data).hexdigest()
    return Photo(sha256, extension, size_bytes, _oddities(path, media_type))


def too_large(size_bytes: int) -> str:
    """Say that a picture is larger than the service takes."""
    return f"is {size_bytes / 1e6:.1f} MB; the service takes at most {SIZE_LIMIT_BYTES // 10**6} MB"


def _oddities(path: Path, media_type: str) -> tuple[str, ...]:
    if media_type not in _DRAWN_BY_PILLOW:
        return ()
    from PIL import Image  # noqa: PLC0415 - only for pictures of this machine

    try:
        with warnings.catch_warnings():
            # Nothing is decoded here, so nothing can burst.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                turned = picture.getexif().get(_ORIENTATION, 1) not in (0, 1)
                mode = picture.mode
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PhotoError("cannot be read as a picture") from error
    found = []
    if turned:
        found.append("stored turned (EXIF orientation)")
    if mode == "CMYK":
        found.append("in CMYK colours")
    return tuple(found)
