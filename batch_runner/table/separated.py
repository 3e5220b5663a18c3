"""Rows of .csv, .tsv and .txt: text with a separator between the cells.

What always holds: quoted cells may hold separators, quotes and lines; the separator is the one that
gives the first rows as many cells as the header, unless the manifest names it. Numbers are a
spreadsheet's: a row with lines inside is one row. With `escape`, that letter before a quote or
before itself means a plain quote or letter; anywhere else it is a letter like any other.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterable
from pathlib import Path

from batch_runner.table.row import Header, Rows, TableError
from batch_runner.table.text import opened
from batch_runner.text.shown import trimmed

CELL_LIMIT_CHARACTERS = 1024 * 1024

_DELIMITERS = ",;\t|"
_SAID_BY_EXCEL = re.compile(r'"?sep=(.)"?\r?\n?')
_AS_TEXT = re.compile('^="([^"]*)"$')
_CHARACTERS_SHOWN = 40
_SAMPLE_CHARACTERS = 32 * 1024
_ROWS_COMPARED = 50
_HINT = (
    "look for a quote that is not closed; quotes written as \\\" need escape: '\\' under images; a"
    " cell cannot hold a picture itself, only its address"
)


def read(
    path: Path,
    encoding: str | None,
    delimiter: str | None,
    escape: str | None,
    *,
    header_row: int,
    is_compressed: bool,
    notes: list[str],
) -> Rows:
    """Yield the rows below the one that names the columns; raises TableError and OSError."""
    with opened(path, encoding, is_compressed=is_compressed, newline="") as file:
        start, lines_before = file.tell(), 0
        said = _SAID_BY_EXCEL.fullmatch(file.readline(_SAMPLE_CHARACTERS))
        if said is not None:
            start, lines_before = file.tell(), 1
        used = delimiter or (said[1] if said else None)
        if used is None:
            file.seek(start)
            used, others = _find_delimiter(file.read(_SAMPLE_CHARACTERS), escape, header_row)
            if others:
                held = " and ".join(map(repr, others))
                what = f"{path.name}: {used!r} separates the cells; the header holds {held} too"
                notes.append(f"{what}: delimiter: names another separator")
        file.seek(start)
        yield from _rows(
            path,
            _unescaped(file, escape),
            used,
            header_row=header_row,
            lines_before=lines_before,
            notes=notes,
        )


def _unescaped(lines: Iterable[str], escape: str | None) -> Iterable[str]:
    """Return the lines without what an escape letter escapes."""
    if escape is None:
        return lines
    letter = re.escape(escape)
    escaped = re.compile(f'{letter}(["{letter}])')
    return (escaped.sub(lambda found: found[1].replace('"', '""'), line) for line in lines)


def _rows(
    path: Path,
    lines: Iterable[str],
    delimiter: str,
    *,
    header_row: int,
    lines_before: int,
    notes: list[str],
) -> Rows:
    # A quote that is never closed would otherwise swallow the rest of a large file as one cell.
    csv.field_size_limit(CELL_LIMIT_CHARACTERS)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: Header | None = None
    number, line = 0, 1 + lines_before
    as_text: str | None = None
    try:
        for number, cells in enumerate(reader, start=1):
            values = [cell.strip() for cell in cells]
            text = "".join(values)
            if not text.isascii():
                values = list(map(trimmed, values))
            if '="' in text:
                # ="00123" is a text to spreadsheets.
                as_text = as_text or next(filter(_AS_TEXT.match, values), None)
                values = [_AS_TEXT.sub(r"\1", value) for value in values]
            if header is not None:
                yield header.row(values, number, line)
            elif number == header_row:
                header = Header(values, number, line, delimiter)
            line = reader.line_num + lines_before + 1
    except csv.Error as error:
        raise TableError(
            f"has a quote that is not closed where its cell ends (separated by {delimiter!r}), or a"
            " cell of more than 1 MB",
            row=number + 1,
            line=line,
            hint=_HINT,
        ) from error
    finally:
        if as_text is not None:
            shown = as_text[:_CHARACTERS_SHOWN]
            notes.append(f"{path.name}: cells such as {shown} are read without = and quotes")
    if header is None:
        Header([], header_row, line)


def _find_delimiter(sample: str, escape: str | None, header_row: int) -> tuple[str, list[str]]:
    """Return the separator of the cells, and the others that the header holds outside of quotes.

    It gives the rows as many cells as the header; of several that do, the header has most of it.
    """
    if len(sample) == _SAMPLE_CHARACTERS and "\n" in sample:
        sample = sample[: sample.rindex("\n") + 1]
    scores = {one: _score(sample, one, escape, header_row) for one in _DELIMITERS}
    best = max(scores, key=lambda one: scores[one])
    return best, [one for one, score in scores.items() if score[1] > 1 and one != best]


def _score(
    sample: str, delimiter: str, escape: str | None, header_row: int
) -> tuple[float, int, int]:
    """Return the share of rows that have as many cells as the header, and how many that has.

    Of equals, the one is taken that no blank follows: `price, EUR` is one name.
    """
    rows: list[list[str]] = []
    unfit = 0
    lines = _unescaped(io.StringIO(sample, newline=""), escape)
    try:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        rows.extend(itertools.islice(reader, header_row + _ROWS_COMPARED))
    except csv.Error:
        unfit += 1
    header, *others = rows[header_row - 1 :] or [[]]
    width = len(header)
    if width <= 1:
        return 0, width, -unfit
    blanks = sum(cell.startswith(" ") for cell in header)
    others = [row for row in others if any(row)]
    fit = sum(len(row) >= width and not any(row[width:]) for row in others)
    # Half a row more, so that a separator of a header without rows counts.
    return (fit + 0.5) / (len(others) + unfit + 0.5), width, -blanks
