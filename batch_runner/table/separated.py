"""Rows of .csv, .tsv and .txt: text with a separator between the cells.

What always holds: quoted cells may hold separators, quotes and lines; the separator is the one that
gives the first rows as many cells as the header, unless the manifest names it. Numbers are a
spreadsheet's: a row with lines inside is one row.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import re
from collections.abc import Iterable
from pathlib import Path

from batch_runner.table.row import Header, Rows, TableError
from batch_runner.table.text import opened
from batch_runner.text.shown import trimmed

CELL_LIMIT_CHARACTERS = 1024 * 1024

_DELIMITERS = ",;\t|"
_AS_TEXT = re.compile('^="([^"]*)"$')
_LINES_COMPARED = 50
_HINT = (
    "look for a quote that is not closed; a quote inside a quoted cell is written twice, not as"
    ' \\"; a cell cannot hold a picture itself, only its address'
)


def read(path: Path, encoding: str | None, delimiter: str | None, header_row: int) -> Rows:
    """Yield the rows below the one that names the columns; raises TableError and OSError."""
    # A quote that is never closed would otherwise swallow the rest of a large file as one cell.
    csv.field_size_limit(CELL_LIMIT_CHARACTERS)
    with opened(path, encoding, newline="") as file:
        first = list(itertools.islice(file, header_row + _LINES_COMPARED))
        if first and first[0].strip('"').lower().startswith("sep="):
            what = f"the first line, {first[0].strip()}, names the separator and no columns"
            raise TableError(what, hint="delete that line")
        used = delimiter or _find_delimiter(first, header_row)
        yield from _rows(itertools.chain(first, file), used, header_row)


def _rows(lines: Iterable[str], delimiter: str, header_row: int) -> Rows:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: Header | None = None
    number, line = 0, 1
    try:
        for number, cells in enumerate(reader, start=1):
            values = [cell.strip() for cell in cells]
            text = "".join(values)
            if not text.isascii():
                values = list(map(trimmed, values))
            if '="' in text:
                # ="00123" is a text to spreadsheets.
                values = [_AS_TEXT.sub(r"\1", value) for value in values]
            if header is not None:
                yield header.row(values, number, line)
            elif number == header_row:
                header = Header(values, number, line, delimiter)
            line = reader.line_num + 1
    except csv.Error as error:
        raise TableError(
            f"has a quote that is not closed where its cell ends (separated by {delimiter!r}), or a"
            " cell of more than 1 MB",
            row=number + 1,
            line=line,
            hint=_HINT,
        ) from error
    if header is None:
        Header([], header_row, line)


def _find_delimiter(lines: list[str], header_row: int) -> str:
    """Return the separator that gives most rows as many cells as the header.

    Of equals, the one is taken that no blank follows: `price, EUR` is one name.
    """
    scores = {}
    for delimiter in _DELIMITERS:
        rows: list[list[str]] = []
        with contextlib.suppress(csv.Error):  # the rows before it count
            rows.extend(csv.reader(lines, delimiter=delimiter))
        header = rows[header_row - 1] if len(rows) >= header_row else []
        if len(header) > 1:
            fitting = sum(len(row) == len(header) for row in rows[header_row:])
            scores[delimiter] = fitting, -sum(name.startswith(" ") for name in header)
    best = max(scores.values(), default=None)
    found = [delimiter for delimiter, score in scores.items() if score == best] or [","]
    if len(found) > 1:
        what = f"{' or '.join(map(repr, found))} may separate the cells"
        raise TableError(what, hint="write which it is as delimiter: under images")
    return found[0]
