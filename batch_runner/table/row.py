"""What every format of table gives: rows; and what may be wrong with one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from batch_runner.text.shown import visible


class TableError(Exception):
    """A table, or one row of it, that cannot be read; `row` is None where it is the whole.

    `line` is the line of the row in the file, where the format has lines.
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

    An empty row has no cells. `file` is its path, where the rows are the files of a folder.
    """

    number: int
    cells: Mapping[str, Any]
    line: int
    file: str | None = None


def no_header(number: int) -> TableError:
    """Return the error of a table whose columns have no names."""
    what = "the table is empty" if number == 1 else f"row {number} is empty"
    row = "its first row" if number == 1 else "it"
    return TableError(what, hint=f"{row} must name the columns; header: says another row")


class Header:
    """The names of the columns, and how a row's values become cells under them.

    A column without a name is left out; `delimiter` is what separates the cells, if anything does.
    Raises TableError if names are missing or repeated.
    """

    def __init__(
        self, names: list[str], number: int, line: int, delimiter: str | None = None
    ) -> None:
        if not any(names):
            raise no_header(number)
        for position, name in enumerate(names):
            if name and name in names[:position]:
                raise TableError(
                    f"two columns are called '{name}'",
                    row=number,
                    line=line,
                    hint="rename one of them; if another row names the columns, say header:",
                )
        self._names = names
        self._delimiter = delimiter
        self._is_named = all(names)

    def __len__(self) -> int:
        return len(self._names)

    def row(self, values: list[Any], number: int, line: int) -> Row:
        """Return a row; missing values at its end are empty cells. Raises TableError."""
        if not any(values):
            return Row(number, {}, line)
        names = self._names
        if len(values) != len(names):
            if any(values[len(names) :]):
                by = "" if self._delimiter is None else f" (separated by {self._delimiter!r})"
                raise TableError(
                    f"has {len(values)} cells, but the header has {len(names)}{by}",
                    row=number,
                    line=line,
                    hint=(
                        'quote a cell that holds the separator: "a, b"; if another one separates'
                        " the cells, write delimiter: under images"
                        if len(names) > 1
                        else f"if row {number} names the columns, say header:"
                    ),
                )
            values = values[: len(names)] + [""] * (len(names) - len(values))
        cells = dict(zip(names, values, strict=True))
        if not self._is_named:
            cells.pop("", None)
        return Row(number, cells, line)


Rows = Iterator[Row]
