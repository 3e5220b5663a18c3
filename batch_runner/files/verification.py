"""Comparing every saved file with its record.

Hides which record of a path is the last. What always holds: verifying reads every byte and changes
nothing; memory grows with the number of saved files only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path

import msgspec

from batch_runner.files.storage import Storage
from batch_runner.records import Record, Saved, SavedFile


class Finding(StrEnum):
    """What is wrong with a file; its value is its mark in the printed list."""

    MISSING = "-"
    DIFFERS = "*"


class Difference(msgspec.Struct, frozen=True):
    """A saved file that is missing or changed; `stem` is the path of its job's first output."""

    finding: Finding
    path: str
    job: str
    fingerprint: str
    stem: str


class _Saved(msgspec.Struct, gc=False):
    job: str
    fingerprint: str
    stem: str
    file: SavedFile


def verify(
    storage: Storage, records: Iterable[Record], is_chosen: Callable[[str], bool] = lambda _: True
) -> Iterator[Difference | None]:
    """Yield None for every saved file that is whole, and the difference for the others.

    `is_chosen` tells whether the files of a job are read, by its key.
    """
    for path, saved in sorted(_last_saved(records).items()):
        if not is_chosen(saved.job):
            continue
        found = storage.sha256(path)
        if found == saved.file.sha256:
            yield None
        else:
            finding = Finding.MISSING if found is None else Finding.DIFFERS
            yield Difference(finding, path, saved.job, saved.fingerprint, saved.stem)


def _last_saved(records: Iterable[Record]) -> dict[str, _Saved]:
    """Return the last file saved to each path: an earlier one was moved aside."""
    last: dict[str, _Saved] = {}
    for record in records:
        if isinstance(record, Saved) and record.files:
            first = record.files[0].path
            stem = first[: -len(Path(first).suffix)] if Path(first).suffix else first
            for file in record.files:
                last[file.path] = _Saved(record.job, record.fingerprint, stem, file)
    return last
