"""What every format of table gives: rows; and what may be wrong with one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from batch_runner.text.shown import has_unseen, trimmed, visible


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

    An empty row has no cells. `file` is its path if the rows are the files of a folder. `former`
    are the cells as earlier releases read them, if that may differ: what they bought was made from
    those. A hidden row of a spreadsheet has no other cells; a row whose `former` is empty was not
    read by them.
    """

    number: int
    cells: Mapping[str, Any]
    line: int
    file: str | None = None
    former: Mapping[str, Any] | None = None


def row_of_values(
    number: int, values: Mapping[str, Any], cell: Callable[[Any, Callable[[str], str]], Any]
) -> Row:
    """Return a row of typed values; `cell` makes one a cell, and trims texts by a function."""
    cells = {trimmed(name): cell(value, trimmed) for name, value in values.items()}
    former = None
    if any(map(_holds_unseen, values.values())):
        former = {name: cell(value, str.strip) for name, value in values.items()}
    return Row(number, cells, number, former=former)


def _holds_unseen(value: Any) -> bool:
    if isinstance(value, str):
        return has_unseen(value)
    items = value.values() if isinstance(value, dict) else value
    return isinstance(value, list | dict) and any(map(_holds_unseen, items))


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

    def row(
        self, values: list[str], number: int, line: int, former: list[str] | None = None
    ) -> Row:
        """Return a row; missing values at its end are empty cells. Raises TableError."""
        if not any(values):
            return Row(number, {}, line)
        cells = self._cells(values, number, line)
        before = None if former is None else self._cells(former, number, line)
        return Row(number, cells, line, former=before)

    def _cells(self, values: list[str], number: int, line: int) -> dict[str, str]:
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
        return cells


Rows = Iterator[Row]
