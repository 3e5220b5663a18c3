"""Rows of a spreadsheet: .xlsx, read as a stream.

Hides openpyxl. What always holds: one row at a time is in memory, beside the table of texts that
most programs put into a spreadsheet; a cell is what the spreadsheet program shows: digits and words
as the cell's format adds them, TRUE and FALSE, the last result of a formula, and dates as ISO 8601
if their format depends on the reader's country. A cell that shows an error (#N/A) is empty. Rows
that a filter or a person hides are left out unless `hidden` is "use", and counted in the notes.
"""

from __future__ import annotations

import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from batch_runner.errors import did_you_mean
from batch_runner.table.number_format import shown_date, shown_number, shown_text
from batch_runner.table.row import Header, Row, Rows, TableError, no_header
from batch_runner.text.shown import has_unseen, trimmed

_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    ParseError,
    EOFError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a file that is no spreadsheet, or a damaged one, makes openpyxl raise."""

_OLD_OR_LOCKED = b"\xd0\xcf\x11\xe0"

_NUMBERS_SHOWN = 5

_ZEROS = re.compile("0+")


def read(path: Path, sheet: str | None, header_row: int, hidden: str, notes: list[str]) -> Rows:
    """Yield the rows of the named sheet, or of the first visible one.

    `header_row` names the columns; rows above it are left out. Raises TableError and OSError.
    """
    try:
        import openpyxl  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise TableError(
            f"reading '{path.name}' needs an extra",
            hint="pip install 'batch-runner[xlsx]', or save the table as 'CSV UTF-8'",
        ) from error
    # It warns of what it does not keep when it would write the file again; nothing is written here.
    warnings.filterwarnings("ignore", module="openpyxl")
    with path.open("rb") as file:
        if file.read(len(_OLD_OR_LOCKED)) == _OLD_OR_LOCKED:
            raise TableError(
                f"'{path.name}' is protected by a password, or in an old format",
                hint="save it without a password as .xlsx",
            )
        file.seek(0)
        try:
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            try:
                chosen = _choose(book, path, sheet, notes)
                yield from _rows(chosen, path, header_row, hidden == "use", notes)
            finally:
                book.close()
        except _DAMAGED as error:
            raise TableError(
                f"'{path.name}' cannot be read: {error}",
                hint="open it in the spreadsheet program and save it again as .xlsx",
            ) from error


def _choose(book: Any, path: Path, sheet: str | None, notes: list[str]) -> Any:
    sheets = {one.title: one for one in book.worksheets}
    if not sheets:
        raise TableError(f"'{path.name}' has no sheet with cells")
    if sheet is not None and sheet not in sheets:
        hint = did_you_mean(sheet, sheets)
        raise TableError(f"'{path.name}' has no sheet '{sheet}'", hint=hint)
    if sheet is not None:
        return sheets[sheet]
    visible = [one for one in book.worksheets if one.sheet_state == "visible"]
    chosen = (visible or book.worksheets)[0]
    if len(sheets) > 1:
        others = ", ".join(f"'{title}'" for title in sheets if title != chosen.title)
        notes.append(
            f"{path.name}: reading the sheet '{chosen.title}', the first that is visible;"
            f" sheet: names another ({others})"
        )
    return chosen


def _rows(sheet: Any, path: Path, header_row: int, use_hidden: bool, notes: list[str]) -> Rows:
    header: Header | None = None
    hidden: list[int] = []
    count = 0
    try:
        for number, cells, is_hidden in _numbered(sheet):
            if number < header_row:
                continue
            plain = [_plain(cell) for cell in cells]
            shown = [_shown(*pair) for pair in zip(cells, plain, strict=True)]
            if header is None:
                header = Header(shown, number, number)
                continue
            may_differ = shown != plain or has_unseen("".join(plain))
            row = header.row(shown, number, number, plain if may_differ else None)
            if is_hidden and row.cells:
                count += 1
                hidden += [number] * (len(hidden) < _NUMBERS_SHOWN)
                if not use_hidden:
                    row = Row(number, {}, number, former=row.former or row.cells)
            yield row
    finally:
        if count:
            notes.append(_about_hidden(path, hidden, count, use_hidden))
    if header is None:
        raise no_header(header_row)


def _about_hidden(path: Path, numbers: list[int], count: int, use_hidden: bool) -> str:
    shown = ", ".join(map(str, numbers)) + ", …" * (count > len(numbers))
    what = f"{path.name}: {count:,} hidden {'row' if count == 1 else 'rows'} ({shown})"
    if use_hidden:
        return f"{what} used like the others, as hidden: use says"
    return f"{what} left out; to use hidden rows, write hidden: use under images"


def _numbered(sheet: Any) -> Iterator[tuple[int, Any, bool]]:
    """Yield the number and cells of each row, and whether it is hidden.

    openpyxl's own iterator knows nothing of hidden rows, its parser does. The parser keeps what it
    knows of every row; it is taken out here, so that memory does not grow.
    """
    from openpyxl.worksheet._reader import WorkSheetParser  # noqa: PLC0415 - an extra

    book, following = sheet.parent, 1
    texts, cells_of = sheet._shared_strings, sheet._get_row  # noqa: SLF001 - nothing public tells
    dates, durations = book._date_formats, book._timedelta_formats  # noqa: SLF001 - the same
    with sheet._get_source() as source:  # noqa: SLF001 - the same
        parser = WorkSheetParser(
            source,
            texts,
            data_only=True,
            epoch=book.epoch,
            date_formats=dates,
            timedelta_formats=durations,
        )
        for number, cells in parser.parse():
            for missing in range(following, number):
                yield missing, (), False
            following = number + 1
            about = parser.row_dimensions.pop(str(number), {})
            is_hidden = about.get("hidden") in ("1", "true") or about.get("ht") == "0"
            yield number, cells_of(cells), is_hidden


def _plain(cell: Any) -> str:
    """Return a cell's value without its format, but for leading zeros: as earlier releases did."""
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, str):
        return "" if cell.data_type == "e" else value.strip()
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    if isinstance(value, int):
        code = cell.number_format or ""
        return str(value).zfill(len(code)) if _ZEROS.fullmatch(code) else str(value)
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(" ")
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value)


def _shown(cell: Any, plain: str) -> str:
    """Return a cell as its format shows it; `plain` is its value without."""
    value = cell.value
    if value is None or isinstance(value, bool) or cell.data_type == "e":
        return plain
    code = cell.number_format or ""
    if isinstance(value, str):
        return shown_text(trimmed(plain), code)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    if isinstance(value, int | float):
        return shown_number(value, code) or plain
    # What is ISO 8601 but for a missing zero stays whole.
    is_iso = isinstance(value, datetime) and code.startswith("yyyy-mm-dd")
    if is_iso or not isinstance(value, date | time):
        return plain
    return shown_date(value, code) or plain
