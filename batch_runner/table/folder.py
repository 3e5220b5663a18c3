"""A folder's pictures as rows: one a file, with what its name says as cells.

What always holds: rows come in the order of the paths, so that the pictures of one folder are
neighbours; a file counts if it is called like a picture; hidden files never count, and nothing that
a NAS, an operating system or a photo program made does. What is left out is counted in the notes.
All paths are in memory while they are sorted.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from batch_runner.table.row import Row, Rows, TableError

_SUFFIXES = (
    *(".avif", ".gif", ".heic", ".jfif", ".jpe", ".jpeg", ".jpg"),
    *(".png", ".tif", ".tiff", ".webp"),
)

_OF_OTHER_PROGRAMS = re.compile(
    r"[.@].*|#(?:recycle|snapshot)|\$RECYCLE\.BIN|RECYCLE[RD]|Trash(?:-\d+)?|Network Trash Folder"
    r"|System Volume Information|Temporary Items|lost\+found|__MACOSX|files_(?:trashbin|versions)"
    r"|.+\.(?:lrdata|lrcat-data|lrlibrary|photoslibrary|photolibrary|aplibrary|cocatalog|cosessiondb)",
    re.IGNORECASE,
)
"""Folders of thumbnails, deleted files and previews: Synology, QNAP, Windows, macOS, Nextcloud,
Lightroom, Photos, Capture One."""

_NAMES_SHOWN = 3


def read(folder: Path, pattern: str, notes: list[str]) -> Rows:
    """Yield a row for each picture below the folder that matches; raises TableError.

    What is left out is added to the notes.
    """
    if not folder.is_dir():
        raise TableError(
            f"there is no folder '{folder}'", hint="its path is relative to the manifest"
        )
    pictures: list[PurePosixPath] = []
    others: list[PurePosixPath] = []
    for found in folder.glob(pattern):
        if found.is_file():
            path = PurePosixPath(found.relative_to(folder).as_posix())
            (pictures if _is_picture(path) else others).append(path)
    if others:
        shown = ", ".join(map(_printable, sorted(others)[:_NAMES_SHOWN]))
        notes.append(
            f"{folder}: left out {len(others):,} files that are not called like pictures, or that"
            f" other programs keep there: {shown}{', …' * (len(others) > _NAMES_SHOWN)}"
        )
    for path in sorted(pictures):
        if _printable(path) != str(path):
            raise TableError(
                f"the name of '{_printable(path)}' is not UTF-8",
                hint="rename it; convmv -f latin1 -t utf-8 -r FOLDER shows new names for all files",
            )
    if not pictures:
        raise TableError(
            f"there are no pictures in '{folder / pattern}'"
            + f", but {len(others)} other files" * bool(others),
            hint="photos/ is one folder, photos/** all below it, photos/*.jpg some of its files",
        )
    for number, path in enumerate(sorted(pictures), start=1):
        yield Row(number, _cells(path), number, str(path))


def _is_picture(path: PurePosixPath) -> bool:
    is_kept_there = any(map(_OF_OTHER_PROGRAMS.fullmatch, path.parts[:-1]))
    return path.suffix.lower() in _SUFFIXES and not is_kept_there and path.name[0] != "."


def _printable(path: PurePosixPath) -> str:
    r"""Return a path as a message shows it, with bytes that are not UTF-8 as \xe9."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _cells(path: PurePosixPath) -> dict[str, str]:
    return {
        "stem": path.stem,
        "name": path.name,
        "path": str(path),
        "folder": "" if path.parent == PurePosixPath() else str(path.parent),
        "suffix": path.suffix.removeprefix("."),
    }
