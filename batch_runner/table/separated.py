"""Rows of .csv, .tsv and .txt: text with a separator between the cells.

What always holds: quoted cells may hold separators, quotes and lines; the separator is the one the
header line uses, unless the manifest says it. Numbers are a spreadsheet's: a row with lines inside
is one row.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import IO

from batch_runner.table.row import Header, Rows, TableError
from batch_runner.table.text import opened

CELL_LIMIT_CHARACTERS = 1024 * 1024

_DELIMITERS = ",;\t|"
_QUOTED = re.compile(r'"[^"]*"')
_SAID_BY_EXCEL = re.compile(r'"?sep=(.)"?\r?\n?')
_HEADER_LIMIT_CHARACTERS = 64 * 1024


def read(
    path: Path,
    encoding: str | None,
    delimiter: str | None,
    *,
    header_row: int,
    is_compressed: bool,
) -> Rows:
    """Yield the rows below the one that names the columns; raises TableError and OSError."""
    with opened(path, encoding, is_compressed=is_compressed, newline="") as file:
        yield from _rows(file, delimiter, header_row)


def _rows(file: IO[str], delimiter: str | None, header_row: int) -> Rows:
    lines_before = 0
    start = file.tell()
    said = _SAID_BY_EXCEL.fullmatch(file.readline(_HEADER_LIMIT_CHARACTERS))
    if said is None:
        file.seek(start)
    else:
        lines_before = 1
    for _ in range(1, header_row):
        lines_before += _read_row_text(file).count("\n")
    start = file.tell()
    used = delimiter or (said.group(1) if said else _find_delimiter(_read_row_text(file)))
    file.seek(start)
    # A quote that is never closed would otherwise swallow the rest of a large file as one cell.
    csv.field_size_limit(CELL_LIMIT_CHARACTERS)
    reader = csv.reader(file, delimiter=used, strict=True)
    number, line = header_row - 1, 1 + lines_before
    try:
        header = Header([name.strip() for name in next(reader, [])], header_row, line)
        number = header_row
        line = reader.line_num + lines_before + 1
        for number, cells in enumerate(reader, start=header_row + 1):
            yield header.row([cell.strip() for cell in cells], number, line)
            line = reader.line_num + lines_before + 1
    except csv.Error as error:
        raise TableError(
            f"cannot be read: {error}",
            row=number + 1,
            line=line,
            hint="look for a quote that is not closed",
        ) from error


def _read_row_text(file: IO[str]) -> str:
    """Read one row as it is written; a quoted cell may go on for lines."""
    text = file.readline(_HEADER_LIMIT_CHARACTERS)
    while text.count('"') % 2 and len(text) < _HEADER_LIMIT_CHARACTERS:
        more = file.readline(_HEADER_LIMIT_CHARACTERS)
        if not more:
            break
        text += more
    return text


def _find_delimiter(header: str) -> str:
    """Return the separator that the header uses most, outside of quotes."""
    return max(_DELIMITERS, key=_QUOTED.sub("", header).count)
