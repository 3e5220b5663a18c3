"""Guesses about a table: which columns are id, title and pictures, and which rows are products.

What always holds: the whole table is read, in constant memory; every guess has a reason that a
person can check. An id differs in every row, or the rows that share it are neighbours with one
title; a column that is almost an id is reported with its bad rows. Not promised: a guess is right.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from batch_runner.commands.columns import Column, split_pictures
from batch_runner.jobs.product import listed_pictures
from batch_runner.manifest.template import quoted
from batch_runner.manifest.validation import show
from batch_runner.table import Row, TableForm, read_rows
from batch_runner.text.quantity import counted

_TITLES = (
    "title",
    "producttitle",
    "productname",
    "name",
    "titel",
    "bezeichnung",
    "nombre",
    "titre",
)
_STATES = ("status", "published", "state", "active", "enabled", "visible", "veroffentlicht")
_FOR_SALE = (
    *("active", "published", "publish", "true", "1", "yes", "live", "enabled", "visible"),
    *("available", "online", "aktiv", "ja", "activo", "sí", "actif", "oui", "attivo"),
)
_PRODUCT_ROWS = frozenset(("product", "produkt", "producto", "produit", "prodotto", "parent"))
_PICTURE_ROWS = frozenset(("image", "picture", "photo", "media", "bild", "imagen", "foto"))
_ROWS_SHOWN = 3
_LAST_RANK = 99
_SHORTENED = (
    "is a number that a spreadsheet program shortened: format the column as text and export again"
)
_REPEATED = "should be one product: correct it, or leave a row out"
_MANY = 4
"""If at most one row in this many repeats an id, the repeats are mistakes."""


class NoGuessError(Exception):
    """A table without pictures or without an id."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


class Guess(msgspec.Struct, frozen=True):
    """One guess: a key of the manifest, its value, and why; or what a person must `check`."""

    key: str
    taken: str
    why: str


class Draft(msgspec.Struct, kw_only=True):
    """What was found in a table, and the guesses.

    Without an `id`, products are named by their row number. `group` is the expression that has the
    same value in all rows of a product; `begins` compares a row with the product above it.
    """

    rows: int
    id: Column | None
    title: Column | None
    pictures: list[Column]
    group: str | None
    split: str | None
    conditions: list[str]
    begins: Callable[[Mapping[str, Any], Mapping[str, Any]], bool]
    products: int = 0
    taken: int = 0
    most_pictures: int = 0
    is_title_missing: bool = False
    guesses: list[Guess] = []


def draft_from_table(path: Path, form: TableForm, notes: list[str]) -> Draft:
    """Read a whole table and guess; raises TableError and NoGuessError."""
    columns, rows = _look_at(row.cells for row in read_rows(path, form, notes) if row.cells)
    if rows == 0:
        hint = (notes or ["export it again with its rows"])[-1]
        raise NoGuessError(f"table '{path}' has no rows", hint)
    pictures = _find_pictures(columns)
    title = _find_title(columns)
    kind = _kind_of_rows(columns)
    if kind is None:
        id_, is_grouped = _find_id(columns, rows, title, lambda: read_rows(path, form))
        group = id_.expression if id_ is not None and is_grouped else None
        begins = _begins_with_another(id_) if id_ is not None and is_grouped else _always
    else:
        begins = _begins_with(*kind)
        whole = _merged(read_rows(path, form), begins, pictures)
        id_, _ = _find_id(*_look_at(whole), None, lambda: iter(()))
        condition = f"{kind[0].expression} == {quoted(kind[1])}"
        group = f"{'row' if id_ is None else id_.expression} if {condition} else ''"
    separators = sum((column.separators for column in pictures), Counter[str]())
    draft = Draft(
        rows=rows,
        id=id_,
        title=title,
        pictures=pictures,
        group=group,
        split=separators.most_common(1)[0][0] if separators else None,
        conditions=list(_conditions(columns)),
        begins=begins,
    )
    _count_products(draft, read_rows(path, form), _state(columns))
    draft.guesses = [*_explain(draft, columns), *_to_check(draft, columns, read_rows(path, form))]
    return draft


def _look_at(rows: Iterable[Mapping[str, Any]]) -> tuple[list[Column], int]:
    """Return the columns of rows, and how many rows there are."""
    columns: dict[str, Column] = {}
    count = 0
    for cells in rows:
        count += 1
        for name, value in cells.items():
            columns.setdefault(name, Column(name)).add(value)
    return list(columns.values()), count


def _find_pictures(columns: list[Column]) -> list[Column]:
    found = [column for column in columns if column.pictures * 2 > column.filled]
    if found:
        return found
    names = ", ".join(column.name for column in columns[:20])
    sign = re.search(r"[\^~#*:!/\\]", names) if len(columns) == 1 else None
    if sign is not None:
        raise NoGuessError(
            f"the table has one column: {names}",
            f"if {sign[0]} separates the cells, add --delimiter '{sign[0]}'",
        )
    raise NoGuessError(
        f"no column has pictures; the columns are: {names}",
        "pictures are addresses such as https://…/mug.jpg, or files such as photos/mug.jpg;"
        " if the column names are in another row, add --header N",
    )


def _find_id(
    columns: list[Column], rows: int, title: Column | None, again: Callable[[], Iterator[Row]]
) -> tuple[Column | None, bool]:
    """Return the column that names the products, and whether neighbouring rows share its value.

    A column named like an id comes first, and one that differs in every row comes before one that
    groups rows. But rows without a title belong to the row above: then grouping comes first, though
    each row may have its own number, as the variants of a product do.
    """
    usable = [column for column in columns if column.can_be_id and not column.pictures]
    differs = [column for column in usable if column.filled == rows and not column.repeated]
    named = min((one for one in differs if one.rank), key=_rank, default=None)
    grouping = _find_grouping(usable, rows, title, again)
    if grouping is not None and grouping.filled == rows and title and title.filled < rows:
        return grouping, True
    if named is not None or grouping is not None:
        return named or grouping, named is None
    mistaken = [one for one in usable if one.filled == rows and _repeats_by_mistake(one)]
    for column in (*sorted(mistaken, key=_rank), *(one for one in differs if one is title)):
        return column, False
    if differs:
        return differs[0], False
    for column in sorted(usable, key=_rank):
        if column.rank and column.returned is not None and not column.is_of_many_products:
            raise _repeats_apart(column, again())
    return None, False


def _rank(column: Column) -> int:
    return column.rank


def _find_grouping(
    columns: list[Column], rows: int, title: Column | None, again: Callable[[], Iterator[Row]]
) -> Column | None:
    """Return the column that has the same value in neighbouring rows of one product."""
    groups = [
        column
        for column in columns
        if column.rank
        and column.filled
        and column.returned is None
        and not column.is_of_many_products
        and not column.shortened
        and (column.repeated or column.filled < rows)
    ]
    if groups and title is not None:
        differing = _with_several_titles(again(), [one.name for one in groups], title.name)
        groups = [one for one in groups if one.name not in differing]
    # A column that is empty below its first row groups too, but so do numbers of only some rows.
    return min(groups, key=lambda one: (one.filled < rows, one.rank), default=None)


def _with_several_titles(rows: Iterable[Row], names: Collection[str], title: str) -> set[str]:
    """Return the columns that have the same value in neighbouring rows with different titles."""
    found: set[str] = set()
    above: dict[str, tuple[str, str]] = {}
    for row in rows:
        shown = _text(row.cells, title)
        for name in names:
            value, shown_above = _text(row.cells, name), above.get(name, ("", ""))
            if value not in ("", shown_above[0]):
                above[name] = value, shown
            elif shown and shown_above[1] not in ("", shown):
                found.add(name)
            elif shown:
                above[name] = shown_above[0], shown
    return found


def _repeats_by_mistake(column: Column) -> bool:
    """Return whether a column names the products, except for a few rows that a person must fix."""
    few = column.repeated * _MANY <= column.filled
    return bool(column.rank and column.repeated and few and not column.is_of_many_products)


def _repeats_apart(column: Column, rows: Iterable[Row]) -> NoGuessError:
    """Return an error that names the rows with the same value in the best column."""
    value = column.returned or ""
    (numbers,) = _row_numbers(rows, [(column, value)])
    return NoGuessError(
        f"no column can name the products; the best is '{column.name}', but {show(value)} is in"
        f" rows {numbers}, with other rows between",
        f"if rows with the same '{column.name}' are one product, sort the table by it: then"
        " init drafts group: for them; if not, give every product its own number or short name",
    )


def _row_numbers(rows: Iterable[Row], wanted: Sequence[tuple[Column, str]]) -> list[str]:
    """Return the first few row numbers of each column and value."""
    numbers: list[list[int]] = [[] for _ in wanted]
    for row in rows:
        for (column, value), found in zip(wanted, numbers, strict=True):
            if len(found) <= _ROWS_SHOWN and row.cells and _text(row.cells, column.name) == value:
                found.append(row.number)
    return [
        ", ".join(map(str, found[:_ROWS_SHOWN])) + ", …" * (len(found) > _ROWS_SHOWN)
        for found in numbers
    ]


def _text(cells: Mapping[str, Any], name: str) -> str:
    return str(cells.get(name, ""))


def _kind_of_rows(columns: list[Column]) -> tuple[Column, str] | None:
    """Return the column that marks rows of products among rows of pictures, and its value."""
    for column in columns:
        values = {value.lower(): value for value in column.values or ()}
        product = next((values[one] for one in values if one in _PRODUCT_ROWS), None)
        if product is not None and not _PICTURE_ROWS.isdisjoint(values):
            return column, product
    return None


_Cells = Mapping[str, Any]


def _always(_cells: _Cells, _above: _Cells) -> bool:
    return True


def _begins_with(kind: Column, value: str) -> Callable[[_Cells, _Cells], bool]:
    return lambda cells, _: _text(cells, kind.name) == value


def _begins_with_another(column: Column) -> Callable[[_Cells, _Cells], bool]:
    return lambda cells, above: _text(cells, column.name) not in ("", _text(above, column.name))


def _find_title(columns: list[Column]) -> Column | None:
    for name in _TITLES:
        for column in columns:
            if column.word == name and column.filled:
                return column
    return None


def _state(columns: list[Column]) -> tuple[Column, str] | None:
    """Return the column that marks products for sale, and the value that means "for sale"."""
    for column in sorted(filter(_says_state, columns), key=lambda one: _STATES.index(one.word)):
        for value in column.values or ():
            if value.lower() in _FOR_SALE:
                return column, value
    return None


def _says_state(column: Column) -> bool:
    return column.word in _STATES and column.values is not None and len(column.values) > 1


def _conditions(columns: list[Column]) -> Iterator[str]:
    """Yield the conditions for a product: for sale, and not a variation of another one."""
    state = _state(columns)
    if state is not None:
        yield f"{state[0].text_expression} == {quoted(state[1])}"
    kind = next((column for column in columns if column.name == "Type"), None)
    if kind is not None and kind.values is not None and "variation" in kind.values:
        yield f"{kind.text_expression} != 'variation'"


def _count_products(draft: Draft, rows: Iterable[Row], state: tuple[Column, str] | None) -> None:
    """Read the table again, by products, to find those without a title or pictures."""
    lacks_pictures = False
    for cells in _merged(rows, draft.begins, draft.pictures):
        draft.products += 1
        if state is not None and str(cells.get(state[0].name, "")) != state[1]:
            continue
        if "Parent" in cells and cells.get("Type") == "variation":
            continue
        pictures = sum(_picture_count(cells.get(column.name, "")) for column in draft.pictures)
        lacks_pictures = lacks_pictures or not pictures
        if not pictures:
            continue
        draft.taken += 1
        draft.most_pictures = max(draft.most_pictures, pictures)
        if draft.title is not None and cells.get(draft.title.name, "") == "":
            draft.is_title_missing = True
    if lacks_pictures:
        names = " or ".join(column.expression for column in draft.pictures)
        is_alone = len(draft.pictures) == 1 or not draft.conditions
        draft.conditions.append(names if is_alone else f"({names})")


def _merged(
    rows: Iterable[Row], begins: Callable[[_Cells, _Cells], bool], pictures: list[Column]
) -> Iterator[dict[str, Any]]:
    """Yield the cells of each product, with the pictures of all its rows in a list per column."""
    lists = {column.name for column in pictures}
    cells: dict[str, Any] = {}
    for row in rows:
        if not row.cells:
            continue
        if cells and begins(row.cells, cells):
            yield cells
            cells = {}
        for name, value in row.cells.items():
            if name in lists and value != "":
                is_list = isinstance(value, list | dict)
                found = listed_pictures(value) if is_list else split_pictures(value)[0]
                cells[name] = [*cells.get(name, []), *found]
            elif cells.get(name, "") == "":
                cells[name] = value
    if cells:
        yield cells


def _picture_count(value: Any) -> int:
    return len(set(map(str, value))) if isinstance(value, list) else 0


def _explain(draft: Draft, columns: list[Column]) -> Iterator[Guess]:
    why = "differs in every row"
    if draft.id is not None and not draft.id.rank:
        repeating = next((one for one in columns if one.rank and one.repeated), None)
        lacking = next((one for one in columns if one.rank and one.filled < draft.rows), None)
        if repeating is not None:
            why += f"; '{repeating.name}' does not"
        elif lacking is not None:
            rows = counted(draft.rows - lacking.filled, "row")
            why += f"; '{lacking.name}' is empty in {rows}"
    if draft.group is not None:
        why = f"neighbouring rows with the same value are one product ({draft.rows:,} rows)"
    elif draft.id is not None and draft.id.repeated:
        why = "because of its name; see below"
    if draft.id is None:
        yield Guess("id", "the row number", "no column names the products")
    else:
        yield Guess("id", draft.id.name, why)
    if draft.title is None:
        yield Guess("title", "none", "no column is called title or name; the prompt uses 'product'")
    else:
        yield Guess("title", draft.title.name, "because of its name; used in the prompt")
    for column in draft.pictures:
        what = "files" if column.files else "addresses"
        yield Guess("urls", column.name, f"{what} of pictures in {column.filled:,} rows")
    if draft.split is not None:
        yield Guess("split", repr(draft.split), "several pictures in one cell")
    if draft.conditions:
        why = f"{draft.taken:,} of {draft.products:,} products match"
        yield Guess("where", " and ".join(draft.conditions), why)


def _to_check(draft: Draft, columns: list[Column], rows: Iterable[Row]) -> Iterator[Guess]:
    """Yield what a person must check, with its rows: repeated ids, and shortened numbers."""
    rank = draft.id.rank if draft.id is not None and draft.id.rank else _LAST_RANK
    nearer = [
        one for one in columns if one.can_be_id and 0 < one.rank <= rank and one is not draft.id
    ]
    asked: list[tuple[Column, str, str]] = []
    for column in [*([] if draft.id is None else [draft.id]), *sorted(nearer, key=_rank)]:
        asked += [(column, value, _SHORTENED) for value in column.shortened]
        is_grouping = column.expression == draft.group
        if (column is draft.id and not is_grouping) or _repeats_by_mistake(column):
            repeated = (value for value in column.examples if value not in column.shortened)
            asked += [(column, value, _REPEATED) for value in repeated]
    numbers = _row_numbers(rows, [(column, value) for column, value, _ in asked]) if asked else []
    for (column, value, why), found in zip(asked, numbers, strict=True):
        in_rows = f"row{'s' * (',' in found)} {found}"
        yield Guess("check", column.name, f"{show(value)} in {in_rows} {why}")
