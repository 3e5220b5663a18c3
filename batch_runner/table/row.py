"""What every format of table gives: rows; and what may be wrong with one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from batch_runner.records import LocalFile
from batch_runner.text.shown import visible


class TableError(Exception):
    """A table, or one row of it, that cannot be read; `row` is None for the whole table.

    `line` is the line of the row in the file, if the format has lines.
    """

    def __init__(
        self,
        message: str,
        *,
        row: int | None = None,
        line: int | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = visible(message)
        self.row = row
        self.line = line
        self.hint = None if hint is None else visible(hint)


class Row(msgspec.Struct, frozen=True):
    """One row: its number as a person counts it, its cells by column name, its line in the file.

    An empty row has no cells. `file` is its path if the rows are the files of a folder, `picture`
    its picture if they are those of another batch.
    """

    number: int
    cells: Mapping[str, Any]
    line: int
    file: str | None = None
    picture: LocalFile | None = None


Rows = Iterator[Row]


class Header:
    """The names of the columns, and how a row's values become cells under them.

    A column without a name is left out; `delimiter` is what separates the cells, if anything does.
    Raises TableError if names are missing or repeated.
    """

    def __init__(self, names: list[str], number: int, line: int, delimiter: str = "") -> None:
        if not any(names):
            what = "the table is empty" if number == 1 else f"row {number} is empty"
            hint = f"row {number} must name the columns; header: says another row"
            raise TableError(what, hint=hint)
        for position, name in enumerate(names):
            if name and name in names[:position]:
                raise TableError(
                    f"two columns are called '{name}'",
                    row=number,
                    line=line,
                    hint="rename one of them; if another row names the columns, say header:",
                )
        self._names = names
        self._by = f" (separated by {delimiter!r})" if delimiter else ""
        self._is_named = all(names)

    def row(self, values: list[str], number: int, line: int) -> Row:
        """Return a row; missing values at its end are empty cells. Raises TableError."""
        if not any(values):
            return Row(number, {}, line)
        names = self._names
        if len(values) != len(names):
            if any(values[len(names) :]):
                raise TableError(
                    f"has {len(values)} cells, but the header has {len(names)}{self._by}",
                    row=number,
                    line=line,
                    hint='quote a cell that holds the separator: "a, b"; or say delimiter: or'
                    " header: (the row that names the columns) under images",
                )
            values = values[: len(names)] + [""] * (len(names) - len(values))
        cells = dict(zip(names, values))  # noqa: B905 - they are equally many
        if not self._is_named:
            cells.pop("", None)
        return Row(number, cells, line)
