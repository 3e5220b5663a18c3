"""A folder's pictures as rows: one a file, with what its name says as cells.

Hides how files are found. What always holds: rows come in the order of the paths, so that the
pictures of one folder are neighbours; only files called like pictures count, hidden ones never.
All paths are in memory while they are sorted.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from batch_runner.table.row import Row, Rows, TableError

SUFFIXES = (".avif", ".gif", ".heic", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def read(folder: Path, pattern: str) -> Rows:
    """Yield a row for each picture below the folder that matches; raises TableError."""
    if not folder.is_dir():
        raise TableError(
            f"there is no folder '{folder}'", hint="its path is relative to the manifest"
        )
    found = [path for path in folder.glob(pattern) if path.is_file()]
    paths = sorted(
        path
        for path in (PurePosixPath(one.relative_to(folder).as_posix()) for one in found)
        if path.suffix.lower() in SUFFIXES and not any(part[0] == "." for part in path.parts)
    )
    if not paths:
        others = f", but {len(found)} other files" if found else ""
        raise TableError(
            f"there are no pictures in '{folder / pattern}'{others}",
            hint="photos/ is one folder, photos/** all below it, photos/*.jpg some of its files",
        )
    for number, path in enumerate(paths, start=1):
        yield Row(number, _cells(path), number, str(path))


def _cells(path: PurePosixPath) -> dict[str, str]:
    return {
        "stem": path.stem,
        "name": path.name,
        "path": str(path),
        "folder": "" if path.parent == PurePosixPath() else str(path.parent),
        "suffix": path.suffix.removeprefix("."),
    }
