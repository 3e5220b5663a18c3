"""Downloads: large files in little memory, and many small ones at a rate that stays."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from canned import canned_service
from measure import measure, report

from batch_runner.files.download import Downloads
from batch_runner.files.folder_storage import FolderStorage

LARGE_BYTES, LARGE_FILES = 50_000_000, 48
SMALL_BYTES, SMALL_FILES = 10_000, 20_000
AT_ONCE, AT_ONCE_SMALL = 8, 32
FOLDERS = 200


def main(folder: Path, *, quick: bool = False) -> None:
    """Measure each in a process of its own, so that memory is its own."""
    rows = []
    with tempfile.TemporaryDirectory(dir=folder) as name:
        Path(name).chmod(0o755)  # nginx reads it as another user
        for what, size_bytes, files, at_once in (
            ("large", LARGE_BYTES, LARGE_FILES // 4 if quick else LARGE_FILES, AT_ONCE),
            ("small", SMALL_BYTES, SMALL_FILES // 4 if quick else SMALL_FILES, AT_ONCE_SMALL),
        ):
            scratch = Path(name) / what
            with canned_service(scratch, size_bytes) as service:
                out = scratch / "out.txt"
                words = [sys.executable, __file__, service.url, str(scratch), str(files)]
                measured = measure([*words, str(at_once), str(out)], core=None, quiet=False)
                if measured.exit_code != 0:
                    raise SystemExit(f"{what}: exit code {measured.exit_code}")
            rows.append(_row(files, size_bytes, at_once, measured.peak_mb, out))
    report("downloads", rows, folder)


def _row(files: int, size_bytes: int, at_once: int, peak_mb: float, out: Path) -> dict[str, Any]:
    first, last, whole = map(float, out.read_text().split())
    return {
        "files": files,
        "KB each": size_bytes // 1000,
        "at a time": at_once,
        "files/s": f"{whole:.0f}",
        "MB/s": f"{whole * size_bytes / 1e6:.0f}",
        "first quarter": f"{first:.0f}/s",
        "last quarter": f"{last:.0f}/s",
        "peak MB": f"{peak_mb:.0f}",
    }


async def _download(url: str, folder: Path, files: int, at_once: int) -> list[float]:
    """Fetch so many files into a tree of folders; returns when each was in place."""
    storage = FolderStorage(folder / "out")
    storage.prepare()
    numbers, ends = iter(range(files)), []
    async with Downloads(storage, allow_loopback=True) as downloads:

        async def work() -> None:
            for number in numbers:
                stem = f"{number % FOLDERS:03}/{number:06}"
                await downloads.fetch(f"{url}/files/{number}.jpg", stem)
                ends.append(time.perf_counter())

        await asyncio.gather(*(work() for _ in range(at_once)))
    return ends


def _run() -> None:
    url, folder, files, at_once, out = sys.argv[1:]
    began = time.perf_counter()
    ends = asyncio.run(_download(url, Path(folder), int(files), int(at_once)))
    quarter = len(ends) // 4
    rates = (
        quarter / (ends[quarter - 1] - began),
        quarter / (ends[-1] - ends[-1 - quarter]),
        len(ends) / (ends[-1] - began),
    )
    Path(out).write_text(" ".join(map(str, rates)), encoding="utf-8")


if __name__ == "__main__":
    _run()
