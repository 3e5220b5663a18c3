"""A folder's pictures as rows: one a file, with what its name says as cells.

Hides how files are found, and what other programs keep among photos. What always holds: rows come
in the order of the paths, so that the pictures of one folder are neighbours; a file counts if it is
called like a picture or holds one; hidden files never count, and nothing that a NAS, an operating
system or a photo program made does. What is left out is counted in the notes. All paths are in
memory while they are sorted.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path, PurePosixPath

from batch_runner.files.media import HEAD_BYTES, recognise
from batch_runner.table.row import Row, Rows, TableError

SUFFIXES = (".avif", ".gif", ".heic", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""A file called so is taken for a picture; if it holds none, that is an error."""

_OF_OTHER_PROGRAMS = re.compile(
    r"@(?:eaDir|tmp|Recycle|Recently-Snapshot|sharebin|sharesnap|appstore|database|__thumb)|#(?:recycle|snapshot)"
    r"|Trash(?:-\d+)?|Network Trash Folder|Temporary Items"
    r"|\$RECYCLE\.BIN|RECYCLER|RECYCLED|System Volume Information|lost\+found|__MACOSX"
    r"|files_(?:trashbin|versions)"
    r"|.+\.(?:lrdata|lrcat-data|lrlibrary|photoslibrary|photolibrary|aplibrary|cocatalog|cosessiondb)",
    re.IGNORECASE,
)
"""Folders of thumbnails, deleted files and previews: Synology, QNAP, Windows, macOS, Nextcloud,
Lightroom, Photos, Capture One. Those that begin with a dot are hidden anyway."""

_COPIES = re.compile(r".+(?:\.(?:thm|bak|old|orig|tmp|part|crdownload)|_original|~)", re.IGNORECASE)
"""Files that hold a picture again: a camera's thumbnail, what was there before an edit."""

_RAW = re.compile(r"(?!\.tiff?$)\..+", re.IGNORECASE)
"""What TIFF files of another suffix are: a camera's raw data, mostly beside the JPEG."""

_NAMES_SHOWN = 3


def read(folder: Path, pattern: str, notes: list[str]) -> Rows:
    """Yield a row for each picture below the folder that matches; raises TableError.

    What is left out is added to the notes.
    """
    if not folder.is_dir():
        raise TableError(
            f"there is no folder '{folder}'", hint="its path is relative to the manifest"
        )
    kept_by_others: Counter[str] = Counter()
    others: list[str] = []
    paths: list[PurePosixPath] = []
    misnamed: list[PurePosixPath] = []
    for found in folder.glob(pattern):
        path = PurePosixPath(found.relative_to(folder).as_posix())
        reason = _kept_by_another_program(path)
        if not found.is_file():
            continue
        if reason is not None:
            kept_by_others[reason] += 1
        elif path.suffix.lower() in SUFFIXES or _holds_picture(found):
            (paths if _is_utf8(path) else misnamed).append(path)
        else:
            others.append(str(path))
    notes += _notes(folder, kept_by_others, sorted(others))
    if misnamed:
        raise _misnamed(misnamed)
    if not paths:
        count = len(others) + kept_by_others.total()
        raise TableError(
            f"there are no pictures in '{folder / pattern}'"
            + f", but {count} other files" * (count > 0),
            hint="photos/ is one folder, photos/** all below it, photos/*.jpg some of its files",
        )
    for number, path in enumerate(sorted(paths), start=1):
        yield Row(number, _cells(path), number, str(path))


def _is_utf8(path: PurePosixPath) -> bool:
    # Python has a surrogate for each byte of a name that is not UTF-8.
    return not any("\ud800" <= character <= "\udfff" for character in str(path))


def _misnamed(paths: list[PurePosixPath]) -> TableError:
    shown = os.fsencode(min(paths)).decode(errors="backslashreplace")
    others = f" (and {len(paths) - 1:,} more like it)" if len(paths) > 1 else ""
    return TableError(
        f"the name of '{shown}' is not UTF-8{others}",
        hint="rename it; convmv -f latin1 -t utf-8 -r FOLDER shows new names for all files",
    )


def _kept_by_another_program(path: PurePosixPath) -> str | None:
    """Return the part of a path that shows that nobody put the file there as a picture."""
    for part in path.parts:
        if part[0] == ".":
            return "hidden"
        if _OF_OTHER_PROGRAMS.fullmatch(part):
            return part
    return "copies" if _COPIES.fullmatch(path.name) else None


def _holds_picture(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            recognised = recognise(file.read(HEAD_BYTES))
    except OSError:
        return False
    if recognised is None or not recognised[0].startswith("image/"):
        return False
    return recognised[0] != "image/tiff" or not _RAW.fullmatch(path.suffix)


def _notes(folder: Path, kept_by_others: Counter[str], others: list[str]) -> list[str]:
    notes = []
    if kept_by_others:
        each = ", ".join(f"{name} {count:,}" for name, count in kept_by_others.most_common())
        notes.append(
            f"{folder}: left out {kept_by_others.total():,} files that other programs keep there:"
            f" {each}"
        )
    if others:
        names = ", ".join(others[:_NAMES_SHOWN]) + ", …" * (len(others) > _NAMES_SHOWN)
        notes.append(f"{folder}: left out {len(others):,} files that are no pictures: {names}")
    return notes


def _cells(path: PurePosixPath) -> dict[str, str]:
    return {
        "stem": path.stem,
        "name": path.name,
        "path": str(path),
        "folder": "" if path.parent == PurePosixPath() else str(path.parent),
        "suffix": path.suffix.removeprefix("."),
    }
