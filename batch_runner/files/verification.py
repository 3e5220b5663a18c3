"""Every saved file against what the ledger says of it.

Hides which claim on a path is the latest. What always holds: verifying reads every byte, changes
nothing, and memory grows with the number of saved files only. Mending (`batch`) downloads again
and never buys.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path

import msgspec

from batch_runner.files.storage import Storage
from batch_runner.records import Record, Saved, SavedFile


class Finding(StrEnum):
    """What is wrong with a file; the value is its mark in the list."""

    MISSING = "-"
    DIFFERS = "*"


class Difference(msgspec.Struct, frozen=True):
    """One saved file that is not what it was; `stem` is where its job's first output goes."""

    finding: Finding
    path: str
    job: str
    fingerprint: str
    stem: str


class _Claim(msgspec.Struct, gc=False):
    job: str
    fingerprint: str
    stem: str
    file: SavedFile


def verify(storage: Storage, records: Iterable[Record]) -> Iterator[Difference | None]:
    """Yield, for every saved file, None if it is whole, else the difference."""
    for path, claim in sorted(_claims(records).items()):
        found = storage.sha256(path)
        if found == claim.file.sha256:
            yield None
        else:
            finding = Finding.MISSING if found is None else Finding.DIFFERS
            yield Difference(finding, path, claim.job, claim.fingerprint, claim.stem)


def _claims(records: Iterable[Record]) -> dict[str, _Claim]:
    """Return who saved each path last: an earlier file of that name was set aside."""
    claims: dict[str, _Claim] = {}
    for record in records:
        if isinstance(record, Saved) and record.files:
            first = record.files[0].path
            stem = first[: -len(Path(first).suffix)] if Path(first).suffix else first
            for file in record.files:
                claims[file.path] = _Claim(record.job, record.fingerprint, stem, file)
    return claims
