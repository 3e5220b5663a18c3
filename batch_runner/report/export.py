"""The batch as a table: one row for each job and file out.

Hides CSV and JSON lines. What always holds: the same manifest and ledger give the same
columns and rows in the same order; in CSV, a cell that a spreadsheet would run as a formula begins
with an apostrophe; the cost of a job is in the row of its first file only, so that the sum is
right; memory does not grow with the rows.

The table's own columns keep their names, except those with the name of a column of this program:
they become `row.NAME`, as in templates. Inputs are `input.NAME`.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import msgspec

from batch_runner.ledger.verdict import Result, Reviewed, Word
from batch_runner.records import SavedFile
from batch_runner.report.details import JobDetails
from batch_runner.run.batch import Batch

FORMATS = ("csv", "jsonl")

_FORMULA = re.compile(r"[\s\ufeff\u200b-\u200f\u2060]*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_encode = msgspec.json.Encoder(decimal_format="string").encode
_NUMBER = re.compile(r"[+-]?[\d.,]+(?:[eE][+-]?\d+)?\s*%?")


_FIRST = ("job",)
_MIDDLE = ("image", "prompt", "prompt_text", "model", "sources")
_LAST = (
    *("state", "reason", "message", "output", "file", "url", "media_type", "size_bytes", "sha256"),
    *("cost_usd", "request_id", "verdict", "verdict_reason", "verdict_note", "verdict_by"),
    *("failed_checks", "attempts", "submitted_at", "saved_at", "took_s", "fingerprint"),
)
_OWN = frozenset((*_FIRST, *_MIDDLE, *_LAST))


class Columns:
    """The columns of a batch's table: their `names` in order, and how many `jobs` there are."""

    def __init__(self, batch: Batch) -> None:
        cells: dict[str, None] = {}
        inputs: dict[str, None] = {}
        self.jobs = 0
        for job in batch.jobs():
            self.jobs += 1
            cells |= dict.fromkeys(job.cells)
            inputs |= dict.fromkeys(job.input)
        for model in batch.models.values():
            for name in (model.prompt_property, *model.image_properties):
                inputs.pop(name, None)
        self._cells, self._inputs = tuple(cells), tuple(inputs)
        own_cells = (
            f"row.{name}" if name in _OWN or name.startswith("input.") else name for name in cells
        )
        self.names = [*_FIRST, *own_cells, *_MIDDLE, *(f"input.{name}" for name in inputs), *_LAST]

    def rows(self, jobs: Iterable[JobDetails], *, accepted: bool) -> Iterator[list[Any]]:
        """Yield the values of each row, in the order of the names: a row for each file or URL.

        A job without any has one row. With `accepted`, only files that a person accepted have rows.
        """
        for details in jobs:
            outputs = list(itertools.zip_longest(details.files, details.urls))
            for number, (file, url) in enumerate(outputs or [(None, None)]):
                said = details.reviewed[number] if file is not None else None
                if accepted and (said is None or said.word is not Word.ACCEPTED):
                    continue
                own = _own_values(details, number, file, url, said)
                yield [
                    *(own[name] for name in _FIRST),
                    *(details.cells.get(name) for name in self._cells),
                    *(own[name] for name in _MIDDLE),
                    *(details.inputs.get(name) for name in self._inputs),
                    *(own[name] for name in _LAST),
                ]


def _own_values(
    details: JobDetails,
    number: int,
    file: SavedFile | None,
    url: str | None,
    said: Reviewed | None,
) -> dict[str, Any]:
    """Return the values of this program's own columns, for one output of a job."""
    failed = [
        one.check
        for one in details.checked
        if file is not None and one.sha256 == file.sha256 and one.result is Result.FAIL
    ]
    return {
        "job": details.job.key,
        "image": details.job.image_id,
        "prompt": details.job.prompt_id,
        "prompt_text": details.prompt,
        "model": details.job.model,
        "sources": " ".join(details.sources) or None,
        "state": details.standing,
        "reason": details.reason,
        "message": details.message,
        "output": number + 1 if file or url else None,
        "file": file.path if file else None,
        "url": url,
        "media_type": file.media_type if file else None,
        "size_bytes": file.size_bytes if file else None,
        "sha256": file.sha256 if file else None,
        "cost_usd": details.cost_usd if number == 0 else None,
        "request_id": details.request_id,
        "verdict": said.word if said else None,
        "verdict_reason": said.reason if said else None,
        "verdict_note": said.note if said else None,
        "verdict_by": said.by if said else None,
        "failed_checks": " ".join(failed) or None,
        "attempts": details.attempts,
        "submitted_at": details.submitted_at,
        "saved_at": details.saved_at,
        "took_s": details.took_s,
        "fingerprint": details.job.fingerprint,
    }


def write_table(
    file: BinaryIO,
    kind: str,
    columns: Columns,
    details: Iterable[JobDetails],
    *,
    accepted: bool = False,
) -> None:
    """Write the table; with `accepted`, only the files that a person accepted."""
    rows = columns.rows(details, accepted=accepted)
    if kind == "jsonl":
        file.writelines(_encode(dict(zip(columns.names, row, strict=True))) + b"\n" for row in rows)
        return
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    try:
        writer = csv.writer(text)
        writer.writerow([_safe(name) for name in columns.names])
        writer.writerows([_safe(_text(value)) for value in row] for row in rows)
    finally:
        # The caller closes the file; text that is not flushed here would be lost.
        text.detach()


def _safe(text: str) -> str:
    """Return text that a spreadsheet does not run as a formula; numbers stay numbers."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return _encode(value).decode().strip('"')
