"""A table's rows as products: grouped, filtered, counted, and of many only some.

Hides how several rows become one product, and which products are taken. What always holds: products
come in the order of the table; at most the rows of one product, and with `sample` those of the
sampled ones, are in memory; a sample depends on the ids alone, so that a row more in
the table moves at most one product of it, and other prompts or a new order move none.
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Any

import msgspec

from batch_runner.manifest.form import TableImages
from batch_runner.manifest.problems import Problems
from batch_runner.manifest.template import Template, is_true
from batch_runner.manifest.validation import show
from batch_runner.table import Row, TableError, has_fixed_columns, read_rows
from batch_runner.text.shown import trimmed

GROUP_LIMIT_ROWS = 10_000

_ID = re.compile(r"[^/\\\x00-\x1f]{1,200}")
_SHORTENED_NUMBER = re.compile(r"\d(?:[.,]\d+)?[eE]\+\d+")
"""What a spreadsheet program makes of a long number, such as 8.80E+12: its last digits are lost."""


class RowCells(dict[str, Any]):
    """The cells of a row as templates see them: row["Image Src"] is one, {{ row }} its number."""

    __slots__ = ("number",)

    def __init__(self, cells: Mapping[str, Any], number: int) -> None:
        super().__init__(cells)
        self.number = number

    def __str__(self) -> str:
        return str(self.number)

    def __int__(self) -> int:
        return self.number


class Product(msgspec.Struct, frozen=True, gc=False):
    """One product: its id, its rows, and all of them as one, under the number of the first.

    That row has the first filled cell of each column; `cells` are its filled ones.
    """

    id: str
    rows: list[Row]
    row: Row
    cells: RowCells


class Tally(msgspec.Struct):
    """What became of a table's rows.

    `notes` are for people: files and hidden rows that were left out, which sheet was read.
    """

    rows: int = 0
    empty_rows: int = 0
    products: int = 0
    left_out: int = 0
    taken: int = 0
    notes: list[str] = []


class Products:
    """The products of a table that are taken; what is wrong with them goes to `problems`.

    `check_columns` gets a row and the names of the columns, once these are known. Iterating raises
    TableError if the table cannot be read.
    """

    def __init__(
        self,
        source: TableImages,
        name: str,
        problems: Problems,
        tally: Tally,
        check_columns: Callable[[Row, Collection[str]], None],
    ) -> None:
        self._source = source
        self._name = name
        self._problems = problems
        self._tally = tally
        self._check_columns = check_columns

    def __iter__(self) -> Iterator[Product]:
        count = self._source.sample
        for product in self._kept() if count is None else _sampled(self._kept(), count):
            self._tally.taken += 1
            yield product

    def _kept(self) -> Iterator[Product]:
        """Yield the products that `where` keeps and that have an id."""
        where, tally = self._source.where, self._tally
        for rows in self._groups():
            tally.products += 1
            row = rows[0] if len(rows) == 1 else _merged(rows)
            if where is not None:
                keep = self._render(where, "where", row)
                if keep is None:
                    continue
                if not is_true(keep):
                    tally.left_out += 1
                    continue
            cells = filled_cells(row)
            id_ = self._id(row, cells)
            if id_ is not None:
                yield Product(id_, rows, row, cells)

    def _rows(self) -> Iterator[Row]:
        """Yield the rows that are not empty."""
        path, tally = self._source.path, self._tally
        is_fixed = has_fixed_columns(path)
        seen: set[str] = set()
        row = None
        for row in read_rows(path, self._source.form, tally.notes):
            if not row.cells:
                tally.empty_rows += 1
                continue
            tally.rows += 1
            if not is_fixed:
                seen.update(row.cells)
            elif tally.rows == 1:
                self._check_columns(row, row.cells)
            yield row
            if self._problems.are_enough:
                return
        if tally.rows == 0:
            hint = (tally.notes or ["export it again with its rows"])[-1]
            raise TableError(f"table '{path}' has no rows", hint=hint)
        if row is not None and not is_fixed and not self._problems:
            self._check_columns(row, seen)

    def _groups(self) -> Iterator[list[Row]]:
        """Yield the rows of each product; a row with an empty group belongs to the one above."""
        template = self._source.group
        if template is None:
            yield from ([row] for row in self._rows())
            return
        rows: list[Row] = []
        current = None
        for row in self._rows():
            text = self._render(template, "group", row)
            if text is None:
                continue
            group = text.strip() or current
            if group is None:
                what = f"{columns_text([template])}empty, and no product stands above it"
                self._problems.add_row(row, what, "fill it in, or choose another images.group")
                continue
            if group != current and rows:
                yield rows
                rows = []
            current = group
            rows.append(row)
            if len(rows) > GROUP_LIMIT_ROWS:
                raise TableError(
                    f"more than {GROUP_LIMIT_ROWS:,} rows belong to one product, {show(group)}",
                    row=row.number,
                    line=row.line,
                    hint="images.group names what the rows of one product share, such as its id",
                )
        if rows:
            yield rows

    def _id(self, row: Row, filled: RowCells) -> str | None:
        template = self._source.id
        text = filled.get(template.lone_variable or "")
        if not isinstance(text, str):
            variables = variables_of(self._name, filled)
            text = self._problems.render(template, ("images", "id"), variables, row)
        if text is None:
            return None
        id_ = trimmed(text)
        if _SHORTENED_NUMBER.fullmatch(id_):
            what = f"{id_} is a number that was shortened"
            hint = "format the column as text in the spreadsheet program, and export it again"
        elif _ID.fullmatch(id_):
            return id_
        else:
            what = f"{show(id_)} cannot be an image id"
            hint = "an id is a short text without slashes; choose another column for images.id, or"
            hint += ' write {{ COLUMN | replace("/", "-") }}'
        self._problems.add_row(row, columns_text([template]) + what, hint)
        return None

    def _render(self, template: Template, place: str, row: Row) -> str | None:
        return self._problems.render(template, ("images", place), all_cells(self._name, row), row)


def listed_pictures(value: list[Any] | dict[str, Any]) -> list[str]:
    """Return the pictures of a list in .jsonl; an object names its own by `url` or `src`."""
    entries = value if isinstance(value, list) else [value]
    named = (
        one.get("url") or one.get("src") or one if isinstance(one, dict) else one for one in entries
    )
    return [trimmed(str(one)) for one in named if one]


def variables_of(name: str, cells: RowCells) -> dict[str, Any]:
    """Return what templates of a table know: the batch's name, and a row's cells."""
    return {"name": name, **cells, "row": cells}


def all_cells(name: str, row: Row) -> dict[str, Any]:
    """Return what `where`, `group` and `urls` may use: every column, also the empty ones."""
    return variables_of(name, RowCells(row.cells, row.number))


def filled_cells(row: Row) -> RowCells:
    """Return the cells that are not empty: in ids, prompts and paths the others are undefined."""
    cells: Mapping[str, Any] = row.cells
    if "" in cells.values():
        cells = {name: value for name, value in cells.items() if value != ""}
    return RowCells(cells, row.number)


def split_cell(text: str, separator: str | None) -> list[str]:
    """Return what one cell lists, without empty places; without separator it is one thing.

    In a cell of addresses a separator counts only where the next one begins: they may hold commas.
    """
    if separator is None:
        text = trimmed(text)
        return [text] if text else []
    if "://" in text:
        parts = re.split(rf"{re.escape(separator)}\s*(?=[A-Za-z][A-Za-z0-9+.-]*://|$)", text)
    else:
        parts = text.split(separator)
    return [part for part in map(trimmed, parts) if part]


def columns_text(templates: list[Template]) -> str:
    """Return the names of the columns that templates use, as the beginning of a problem."""
    names = sorted({name for template in templates for name in template.columns})
    quoted = ", ".join(f"'{name}'" for name in names)
    return f"column {quoted}: " if names else ""


def _merged(rows: list[Row]) -> Row:
    cells: dict[str, Any] = {}
    for row in rows:
        for name, value in row.cells.items():
            if cells.get(name, "") == "":
                cells[name] = value
    return Row(rows[0].number, cells, rows[0].line, rows[0].file)


def _sampled(products: Iterable[Product], count: int) -> Iterator[Product]:
    """Yield the products whose ids have the smallest hashes, in the order of the table."""
    kept = heapq.nsmallest(
        count,
        enumerate(products),
        key=lambda entry: hashlib.sha256(f"0\n{entry[1].id}".encode()).digest()[:8],
    )
    return (product for _, product in sorted(kept, key=itemgetter(0)))
