"""A table of products, row by row: .csv, .tsv and .jsonl.

Hides the file formats. What always holds: rows come as a stream, in file order, in constant memory,
each with the number a person sees (for .csv and .tsv as a spreadsheet counts them, the header
being row 1; for .jsonl the line). Cells are text without surrounding blanks, except in .jsonl,
where numbers and lists stay what they are; an empty cell is "". A column without a name is left
out.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import msgspec

FORMATS = (".csv", ".tsv", ".jsonl")

CELL_LIMIT_CHARACTERS = 1024 * 1024


class TableError(Exception):
    """A table, or one row of it, that cannot be read; `row` is None where it is the whole."""

    def __init__(self, message: str, *, row: int | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.row = row
        self.hint = hint


class Row(msgspec.Struct, frozen=True):
    """One row: its number as a person counts it, and its cells by column name."""

    number: int
    cells: Mapping[str, Any]


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows; raises TableError."""
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise TableError(
            f"'{path.name}' is not a table this program reads",
            hint=f"save it as one of {', '.join(FORMATS)}",
        )
    try:
        with path.open(encoding="utf-8-sig", newline="" if kind != ".jsonl" else None) as file:
            yield from _json_rows(file) if kind == ".jsonl" else _separated_rows(file, kind)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise TableError(
            f"cannot read table '{path}': {error.strerror}",
            hint="its path is relative to the manifest" if missing else None,
        ) from error
    except UnicodeDecodeError as error:
        raise TableError(
            f"is not UTF-8 (byte 0x{error.object[error.start]:02x})",
            row=_first_undecodable_line(path),
            hint="export the table again as 'CSV UTF-8'",
        ) from error


def _first_undecodable_line(path: Path) -> int:
    """Find the line again: text is decoded in blocks, far ahead of the row that is read."""
    with path.open("rb") as file:
        return 1 + sum(1 for _ in itertools.takewhile(_is_utf8, file))


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _separated_rows(file: IO[str], kind: str) -> Iterator[Row]:
    header_line = re.sub(r'"[^"]*"', "", file.readline())
    file.seek(0)
    delimiter = "\t" if kind == ".tsv" else max(",;\t|", key=header_line.count)
    # A quote that is never closed would otherwise swallow the rest of a large file as one cell.
    csv.field_size_limit(CELL_LIMIT_CHARACTERS)
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    number = 0
    try:
        header = [name.strip() for name in next(reader, [])]
        number = 1
        _check_header(header)
        for number, cells in enumerate(reader, start=2):
            if not any(cells):
                continue
            if len(cells) > len(header):
                raise TableError(
                    f"has {len(cells)} cells, but the header has {len(header)}",
                    row=number,
                    hint='quote a cell that holds the separator: "a, b"',
                )
            padded = cells + [""] * (len(header) - len(cells))
            named = {name: cell.strip() for name, cell in zip(header, padded, strict=True) if name}
            yield Row(number, named)
    except csv.Error as error:
        raise TableError(
            f"cannot be read: {error}", row=number + 1, hint="look for a quote that is not closed"
        ) from error


def _check_header(header: list[str]) -> None:
    if not any(header):
        raise TableError("the table is empty", hint="its first row must name the columns")
    for position, name in enumerate(header):
        if name and name in header[:position]:
            raise TableError(f"two columns are called '{name}'", row=1, hint="rename one of them")


def _json_rows(file: IO[str]) -> Iterator[Row]:
    decoder = msgspec.json.Decoder(dict[str, Any])
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            cells = decoder.decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            raise TableError(
                f"is not a JSON object: {error}", row=number, hint='one {"column": value} a line'
            ) from error
        yield Row(number, {name: _cell(value) for name, value in cells.items()})


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return value.strip() if isinstance(value, str) else value
