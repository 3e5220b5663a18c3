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
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any, BinaryIO

import msgspec

from batch_runner.ledger.verdict import Result, Reviewed, Word
from batch_runner.records import SavedFile
from batch_runner.report.details import JobDetails
from batch_runner.run.batch import Batch

FORMATS = ("csv", "jsonl")

_FORMULA = re.compile(r"[\s\ufeff\u200b-\u200f\u2060]*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?[\d.,]+(?:[eE][+-]?\d+)?\s*%?")


class Row(msgspec.Struct, frozen=True):
    """One output of a job; a job without outputs has one row, without a file."""

    details: JobDetails
    number: int
    file: SavedFile | None
    url: str | None

    @property
    def said(self) -> Reviewed | None:
        """Return what a person said about the file."""
        reviewed = self.details.reviewed if self.file is not None else ()
        return reviewed[self.number - 1] if self.number <= len(reviewed) else None


def _failed_checks(row: Row) -> str | None:
    if row.file is None:
        return None
    failed = [
        one.check
        for one in row.details.checked
        if one.sha256 == row.file.sha256 and one.result is Result.FAIL
    ]
    return " ".join(failed) or None


_Value = Callable[[Row], Any]
"""Computes a cell."""

_FIRST: dict[str, _Value] = {
    "job": lambda row: row.details.job.key,
}
_LAST: dict[str, _Value] = {
    "state": lambda row: row.details.standing,
    "reason": lambda row: row.details.reason,
    "message": lambda row: row.details.message,
    "output": lambda row: row.number if row.file or row.url else None,
    "file": lambda row: row.file.path if row.file else None,
    "url": lambda row: row.url,
    "media_type": lambda row: row.file.media_type if row.file else None,
    "size_bytes": lambda row: row.file.size_bytes if row.file else None,
    "sha256": lambda row: row.file.sha256 if row.file else None,
    "cost_usd": lambda row: row.details.cost_usd if row.number == 1 else None,
    "request_id": lambda row: row.details.request_id,
    "verdict": lambda row: row.said.word if row.said else None,
    "verdict_reason": lambda row: row.said.reason if row.said else None,
    "verdict_note": lambda row: row.said.note if row.said else None,
    "verdict_by": lambda row: row.said.by if row.said else None,
    "failed_checks": _failed_checks,
    "attempts": lambda row: row.details.attempts,
    "submitted_at": lambda row: row.details.submitted_at,
    "saved_at": lambda row: row.details.saved_at,
    "took_s": lambda row: row.details.took_s,
    "fingerprint": lambda row: row.details.job.fingerprint,
}
_MIDDLE: dict[str, _Value] = {
    "image": lambda row: row.details.job.image_id,
    "prompt": lambda row: row.details.job.prompt_id,
    "prompt_text": lambda row: row.details.prompt,
    "model": lambda row: row.details.job.model,
    "sources": lambda row: " ".join(row.details.sources) or None,
}
_OWN_NAMES = frozenset((*_FIRST, *_MIDDLE, *_LAST))


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
        self._values: dict[str, _Value] = {
            **_FIRST,
            **{_cell_name(name): _cell(name) for name in cells},
            **_MIDDLE,
            **{f"input.{name}": _input(name) for name in inputs},
            **_LAST,
        }
        self.names = list(self._values)

    def rows(self, details: Iterable[JobDetails], *, accepted: bool) -> Iterator[list[Any]]:
        """Yield the values of each row, in the order of the names."""
        for row in _rows_of(details):
            if not accepted or (row.said is not None and row.said.word is Word.ACCEPTED):
                yield [value(row) for value in self._values.values()]


def _cell_name(name: str) -> str:
    return f"row.{name}" if name in _OWN_NAMES or name.startswith("input.") else name


def _cell(name: str) -> _Value:
    return lambda row: row.details.cells.get(name)


def _input(name: str) -> _Value:
    return lambda row: row.details.inputs.get(name)


def _rows_of(details: Iterable[JobDetails]) -> Iterator[Row]:
    """Yield a row for each output, and one for a job without outputs."""
    for one in details:
        outputs = itertools.zip_longest(one.files, one.urls)
        number = 0
        for number, (file, url) in enumerate(outputs, start=1):
            yield Row(one, number, file, url)
        if number == 0:
            yield Row(one, 1, None, None)


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
        encoder = msgspec.json.Encoder(decimal_format="string")
        file.writelines(
            encoder.encode(dict(zip(columns.names, row, strict=True))) + b"\n" for row in rows
        )
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
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return str(value).lower()
        case Decimal():
            return f"{value:f}"
        case datetime() | list() | dict():
            return msgspec.json.encode(value).decode().strip('"')
        case _:
            return str(value)
