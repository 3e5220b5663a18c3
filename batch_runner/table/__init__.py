"""A table of products, row by row: .csv, .tsv, .txt, .jsonl and .xlsx, or a folder.

Hides the file formats and encodings. What always holds: rows come as a stream, in file order, in
constant memory (the texts of a spreadsheet aside), each with the number a person sees (as a
spreadsheet counts them, the header being row 1; for .jsonl the line); nothing is guessed that could
change a title: text is UTF-8 unless the file's own mark or the manifest says otherwise. Cells of
text formats and spreadsheets are text without surrounding blanks, as an export to CSV would show
them, ="00123" being 00123; in .jsonl numbers and lists stay what they are. An empty cell is "".
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from batch_runner.table import folder, lines, separated
from batch_runner.table.row import Row, Rows, TableError
from batch_runner.table.text import is_encoding

__all__ = [
    "FORMATS",
    "Row",
    "Rows",
    "TableError",
    "TableForm",
    "has_fixed_columns",
    "is_encoding",
    "is_manifest",
    "read_rows",
]

FORMATS = (".csv", ".tsv", ".txt", ".jsonl", ".xlsx")

_SEPARATED = (".csv", ".tsv", ".txt")
_JSON_LINES = (".jsonl", ".ndjson")
_SHEETS = (".xlsx", ".xlsm")
_HINTS = {
    ".json": "write one object a line: jq -c '.[]' products.json > products.jsonl",
    ".parquet": "write it as JSON lines, such as with DuckDB: COPY 't.parquet' TO 't.jsonl'",
    ".gz": "unpack it with gunzip first",
}


class TableForm(msgspec.Struct, frozen=True, kw_only=True):
    """How a manifest describes its table; None means that the file itself shows it.

    With a `pattern` the table is a folder, and its rows are the pictures that match. If the table
    is another batch, `rows` gives its pictures.
    """

    pattern: str | None = None
    encoding: str | None = None
    delimiter: str | None = None
    sheet: str | None = None
    header: int = 1
    rows: Callable[[list[str]], Rows] | None = None


_ANY_FORM = TableForm()


def read_rows(path: Path, form: TableForm = _ANY_FORM, notes: list[str] | None = None) -> Rows:
    """Yield the rows; raises TableError.

    `notes` takes what a person should know of the whole, such as how many rows were left out.
    """
    try:
        yield from _read(path, form, [] if notes is None else notes)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise TableError(
            f"cannot read table '{path}': {error.strerror or error}",
            hint="its path is relative to the manifest" if missing else None,
        ) from error


def has_fixed_columns(path: Path) -> bool:
    """Tell whether every row has the columns of the first; those of .jsonl have their own."""
    return path.suffix.lower() not in _JSON_LINES and not is_manifest(path)


def is_manifest(path: Path) -> bool:
    """Tell whether a path is that of a manifest, by its suffix."""
    return path.suffix.lower() in (".yaml", ".yml")


def _read(path: Path, form: TableForm, notes: list[str]) -> Rows:
    """Return the rows of a file of that name."""
    if form.rows is not None:
        return form.rows(notes)
    if form.pattern is not None:
        return folder.read(path, form.pattern, notes)
    kind = path.suffix.lower()
    if kind in _SEPARATED:
        delimiter = "\t" if kind == ".tsv" and form.delimiter is None else form.delimiter
        return separated.read(path, form.encoding, delimiter, form.header)
    if kind in _JSON_LINES:
        return lines.read(path, form.encoding)
    if kind in _SHEETS:
        from batch_runner.table import sheet  # noqa: PLC0415 - an extra, and heavy

        return sheet.read(path, form.sheet, form.header, notes)
    hint = _HINTS.get(kind, f"save it as one of {', '.join(FORMATS)}")
    raise TableError(f"'{path.name}' is not a table this program reads", hint=hint)
