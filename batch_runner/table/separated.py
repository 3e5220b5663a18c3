"""Rows of .csv, .tsv and .txt: text with a separator between the cells.

What always holds: quoted cells may hold separators, quotes and lines; the separator is the one that
gives the first rows as many cells as the header, unless the manifest names it. Numbers are a
spreadsheet's: a row with lines inside is one row. With `escape`, that letter before a quote or
before itself means a plain quote or letter; anywhere else it is a letter like any other.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from batch_runner.table.row import Header, Row, Rows, TableError
from batch_runner.table.text import opened
from batch_runner.text.shown import has_unseen, trimmed

CELL_LIMIT_CHARACTERS = 1024 * 1024

_DELIMITERS = ",;\t|"
_SAID_BY_EXCEL = re.compile(r'"?sep=(.)"?\r?\n?')
_CHARACTERS_SHOWN = 40
_AS_TEXT = re.compile('="([^"]*)"')
_HEADER_LIMIT_CHARACTERS = 64 * 1024
_ROWS_COMPARED = 50


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
        lines_before = 0
        start = file.tell()
        said = _SAID_BY_EXCEL.fullmatch(file.readline(_HEADER_LIMIT_CHARACTERS))
        if said is None:
            file.seek(start)
        else:
            lines_before = 1
        for _ in range(1, header_row):
            lines_before += _read_row_text(file).count("\n")
        used = delimiter or (said.group(1) if said else None)
        if used is None:
            start = file.tell()
            used, others = _find_delimiter(_read_first_rows(file), escape)
            file.seek(start)
            if others:
                held = " and ".join(map(repr, others))
                what = f"{path.name}: {used!r} separates the cells; the header holds {held} too"
                notes.append(f"{what}: delimiter: names another separator")
        lines = _Lines(file, escape)
        try:
            yield from _rows(lines, used, header_row, lines_before)
        finally:
            if lines.as_text is not None:
                notes.append(
                    f"{path.name}: cells such as {lines.as_text} are read without = and quotes"
                )


class _Lines:
    """The lines of a file, without what an escape letter escapes.

    `has_backslash`: there are backslashes before quotes; `as_text` is the first ="00123".
    """

    def __init__(self, lines: Iterable[str], escape: str | None) -> None:
        self._lines = iter(lines)
        self._escape = escape
        self._escaped = None if escape is None else _escaped(escape)
        self.has_backslash = False
        self.has_huge_line = False
        self.as_text: str | None = None

    def shown(self, cell: str) -> str:
        """Return a cell without blanks around it; ="00123", a text to spreadsheets, is 00123."""
        cell = trimmed(cell)
        found = _AS_TEXT.fullmatch(cell)
        if found is None:
            return cell
        self.as_text = self.as_text or cell[:_CHARACTERS_SHOWN]
        return found[1]

    def row(self, header: Header, cells: list[str], number: int, line: int) -> Row:
        """Return a row of cells; the rare odd cell makes all of them be looked at one by one."""
        values = [cell.strip() for cell in cells]
        text = "\0".join(values)
        is_unseen = has_unseen(text)
        if not is_unseen and '="' not in text:
            return header.row(values, number, line)
        shown = [self.shown(cell) for cell in values]
        former = values if is_unseen or shown != values else None
        return header.row(shown, number, line, former)

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.has_huge_line = len(line) > CELL_LIMIT_CHARACTERS
            if self._escaped is not None and self._escape in line:  # type: ignore[operator]  # both
                yield self._escaped.sub(_unescaped, line)
                continue
            self.has_backslash = self.has_backslash or '\\"' in line
            yield line


def _escaped(escape: str) -> re.Pattern[str]:
    letter = re.escape(escape)
    return re.compile(f'{letter}(["{letter}])')


def _unescaped(found: re.Match[str]) -> str:
    return '""' if found[1] == '"' else found[1]


def _rows(lines: _Lines, delimiter: str, header_row: int, lines_before: int) -> Rows:
    # A quote that is never closed would otherwise swallow the rest of a large file as one cell.
    csv.field_size_limit(CELL_LIMIT_CHARACTERS)
    reader = csv.reader(iter(lines), delimiter=delimiter, strict=True)
    number, line = header_row - 1, 1 + lines_before
    try:
        names = [trimmed(name) for name in next(reader, [])]
        header = Header(names, header_row, line, delimiter)
        number = header_row
        line = reader.line_num + lines_before + 1
        for number, cells in enumerate(reader, start=header_row + 1):
            yield lines.row(header, cells, number, line)
            line = reader.line_num + lines_before + 1
    except csv.Error as error:
        hint = "look for a quote that is not closed"
        if lines.has_huge_line:
            raise TableError(
                "has a cell of more than 1 MB",
                row=number + 1,
                line=line,
                hint=f"{hint}; if it holds a picture, put that picture's address there instead",
            ) from error
        raise TableError(
            f"has a quote that is not closed where its cell ends (separated by {delimiter!r})",
            row=number + 1,
            line=line,
            hint=_BACKSLASH_HINT if lines.has_backslash else hint,
        ) from error
    except TableError as error:
        if lines.has_backslash:
            error.hint = _BACKSLASH_HINT
        raise


_BACKSLASH_HINT = "quotes inside of cells are written \\\" here: write escape: '\\' under images"


def _read_row_text(file: IO[str]) -> str:
    """Read one row as it is written; a quoted cell may go on for lines."""
    text = file.readline(_HEADER_LIMIT_CHARACTERS)
    while text.count('"') % 2 and len(text) < _HEADER_LIMIT_CHARACTERS:
        more = file.readline(_HEADER_LIMIT_CHARACTERS)
        if not more:
            break
        text += more
    return text


def _read_first_rows(file: IO[str]) -> str:
    texts: list[str] = []
    while len(texts) < _ROWS_COMPARED and sum(map(len, texts)) < _HEADER_LIMIT_CHARACTERS:
        texts.append(_read_row_text(file))
        if not texts[-1]:
            break
    return "".join(texts)


def _find_delimiter(sample: str, escape: str | None) -> tuple[str, list[str]]:
    """Return the separator of the cells, and the others that the header holds outside of quotes.

    It gives the rows as many cells as the header; of several that do, the header has most of it.
    """
    scores = {one: _score(sample, one, escape) for one in _DELIMITERS}
    best = max(scores, key=lambda one: scores[one])
    return best, [one for one, score in scores.items() if score[1] > 1 and one != best]


def _score(sample: str, delimiter: str, escape: str | None) -> tuple[float, int, int]:
    """Return the share of rows that have as many cells as the header, and how many that has.

    Of equals, the one is taken that no blank follows: `price, EUR` is one name.
    """
    lines = _Lines(io.StringIO(sample, newline=""), escape)
    rows: list[list[str]] = []
    unfit = 0
    try:
        rows.extend(csv.reader(iter(lines), delimiter=delimiter, strict=True))
    except csv.Error:
        unfit += 1
    width = len(rows[0]) if rows else 0
    if width <= 1:
        return 0, width, 0
    blanks = sum(cell.startswith(" ") for cell in rows[0])
    others = [row for row in rows[1:] if any(row)]
    fit = sum(len(row) >= width and not any(row[width:]) for row in others)
    # Half a row more, so that a separator of a header without rows counts.
    return (fit + 0.5) / (len(others) + unfit + 0.5), width, -blanks
