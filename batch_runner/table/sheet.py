"""Rows of a spreadsheet: .xlsx, read as a stream.

Hides openpyxl. What always holds: one row at a time is in memory, beside the table of texts that
most programs put into a spreadsheet; a cell is what the spreadsheet program shows: numbers with the
digits and words of their format, TRUE and FALSE, the last result of a formula; but dates are ISO
8601. A cell that shows an error (#N/A) is empty. Rows that a filter or a person hides are left
out, and counted in the notes.
"""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from batch_runner.errors import did_you_mean
from batch_runner.table.number_format import shown_number
from batch_runner.table.row import Header, Rows, TableError
from batch_runner.text.quantity import counted
from batch_runner.text.shown import trimmed

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


def read(path: Path, sheet: str | None, header_row: int, notes: list[str]) -> Rows:
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
        try:
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            try:
                chosen = _choose(book, path, sheet, notes)
                yield from _rows(chosen, path, header_row, notes)
            finally:
                book.close()
        except _DAMAGED as error:
            raise TableError(
                f"'{path.name}' cannot be read: {error}",
                hint="open it in the spreadsheet program and save it again as .xlsx,"
                " without a password",
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


def _rows(sheet: Any, path: Path, header_row: int, notes: list[str]) -> Rows:
    header: Header | None = None
    hidden: list[int] = []
    try:
        for number, cells, is_hidden in _numbered(sheet):
            if number < header_row:
                continue
            values = [_shown(cell) for cell in cells]
            if header is None:
                header = Header(values, number, number)
                continue
            row = header.row(values, number, number)
            if is_hidden and row.cells:
                hidden.append(number)
            else:
                yield row
    finally:
        if hidden:
            left_out = f"{counted(len(hidden), 'hidden row')} left out, first row {hidden[0]}"
            notes.append(f"{path.name}: {left_out}")
    if header is None:
        Header([], header_row, header_row)


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


def _shown(cell: Any) -> str:
    """Return a cell as the spreadsheet program shows it."""
    value = cell.value
    if value is None or cell.data_type == "e":
        return ""
    if isinstance(value, str):
        return trimmed(value)
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    if isinstance(value, int | float):
        return shown_number(value, cell.number_format or "") or str(value)
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(" ")
    return value.isoformat() if isinstance(value, date | time) else str(value)
