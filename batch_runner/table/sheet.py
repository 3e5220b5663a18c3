"""Rows of a spreadsheet: .xlsx, read as a stream.

Hides openpyxl. What always holds: one row at a time is in memory, beside the table of texts that
most programs put into a spreadsheet; a cell is what an export to CSV would show: whole numbers
without `.0`, leading zeros where the cell's format adds them, dates as ISO 8601, TRUE and FALSE,
the last result of a formula. A cell that shows an error (#N/A) is empty.
"""

from __future__ import annotations

import itertools
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
from batch_runner.table.row import Header, Rows, TableError, no_header

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

_ZEROS = re.compile(r"0+")


def read(path: Path, sheet: str | None, header_row: int) -> Rows:
    """Yield the rows of the named sheet, or of the first; raises TableError and OSError.

    `header_row` names the columns; what stands above it is left out.
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
                yield from _rows(_choose(book, path, sheet), header_row)
            finally:
                book.close()
        except _DAMAGED as error:
            raise TableError(
                f"'{path.name}' cannot be read: {error}",
                hint="open it in the spreadsheet program and save it again as .xlsx",
            ) from error


def _choose(book: Any, path: Path, sheet: str | None) -> Any:
    sheets = {one.title: one for one in book.worksheets}
    if not sheets:
        raise TableError(f"'{path.name}' has no sheet with cells")
    if sheet is None:
        return book.worksheets[0]
    if sheet not in sheets:
        hint = did_you_mean(sheet, sheets)
        raise TableError(f"'{path.name}' has no sheet '{sheet}'", hint=hint)
    return sheets[sheet]


def _rows(sheet: Any, header_row: int) -> Rows:
    # Some programs write wrong dimensions; what counts is the rows themselves.
    sheet.reset_dimensions()
    rows: Iterator[Any] = enumerate(sheet.iter_rows(), start=1)
    header: Header | None = None
    for number, cells in itertools.islice(rows, header_row - 1, None):
        texts = [_text(cell) for cell in cells]
        if header is None:
            header = Header(texts, number, number)
        else:
            yield header.row(texts, number, number)
    if header is None:
        raise no_header(header_row)


def _text(cell: Any) -> str:
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
        zeros = _ZEROS.fullmatch(cell.number_format or "")
        return str(value).zfill(len(zeros.group())) if zeros else str(value)
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(" ")
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value)
