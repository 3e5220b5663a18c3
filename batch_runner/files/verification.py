"""Comparing every saved file with its record.

Hides which record of a path is the last. What always holds: verifying reads every byte and changes
nothing; memory grows with the number of saved files only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from operator import itemgetter
from pathlib import PurePosixPath

import msgspec

from batch_runner.files.storage import Storage
from batch_runner.records import Record, Saved


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


def verify(
    storage: Storage, records: Iterable[Record], is_chosen: Callable[[str], bool] = lambda _: True
) -> Iterator[Difference | None]:
    """Yield None for every saved file that is whole, and the difference for the others.

    `is_chosen` tells whether the files of a job are read, by its key.
    """
    # The last file saved to each path: an earlier one was moved aside.
    last = {
        file.path: (record, file)
        for record in records
        if isinstance(record, Saved)
        for file in record.files
    }
    for path, (record, file) in sorted(last.items(), key=itemgetter(0)):
        if not is_chosen(record.job):
            continue
        found = storage.sha256(path)
        if found == file.sha256:
            yield None
        else:
            finding = Finding.MISSING if found is None else Finding.DIFFERS
            stem = str(PurePosixPath(record.files[0].path).with_suffix(""))
            yield Difference(finding, path, record.job, record.fingerprint, stem)
