"""Guesses about a table: which column is the id, the title, the pictures, which rows are products.

What always holds: the whole table is looked at, in constant memory; every guess has a reason that a
person can check. An id is different in every row, or its rows are neighbours that do not differ in
their title; what comes close to that is named with its rows. Not promised: that a guess is right.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from batch_runner.commands.columns import Column, split_pictures
from batch_runner.jobs.product import listed_pictures
from batch_runner.manifest.template import quoted
from batch_runner.manifest.validation import show
from batch_runner.table import Row, TableForm, read_rows

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
    "is a number that a spreadsheet program shortened: format the column as text, and export again"
)
_REPEATED = "should name one product: correct it, or leave a row out"
_MANY = 4
"""An id may repeat in one of so many rows: then those are mistakes."""


class NoGuessError(Exception):
    """A table in which no pictures, or no id, can be found; says what is there."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


class Guess(msgspec.Struct, frozen=True):
    """One guess: the manifest's key, what was taken, and why; or what a person has to `check`."""

    key: str
    taken: str
    why: str


class Draft(msgspec.Struct, kw_only=True):
    """What was found in a table, and what was guessed from it.

    Without an `id` the rows' numbers name the products. `group` is the expression that neighbouring
    rows of one product share.
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
    """Look at a whole table and guess; raises TableError and NoGuessError."""
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
    raise NoGuessError(
        f"no column holds pictures; there are: {names}",
        "pictures are addresses such as https://…/mug.jpg, or files such as photos/mug.jpg;"
        " if another row names the columns, add --header N",
    )


def _find_id(
    columns: list[Column], rows: int, title: Column | None, again: Callable[[], Iterator[Row]]
) -> tuple[Column | None, bool]:
    """Return the column that names the products, and whether neighbouring rows share its value.

    A name that says it comes first, and what differs in every row before what groups rows. If rows
    have no title, though, they belong to the one above: then what groups them comes first, though
    each may have a number of its own, as the variants of a product do.
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
            raise _stands_apart(column, again())
    return None, False


def _rank(column: Column) -> int:
    return column.rank


def _find_grouping(
    columns: list[Column], rows: int, title: Column | None, again: Callable[[], Iterator[Row]]
) -> Column | None:
    """Return the column whose neighbouring rows of one value are one product."""
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
    # What is empty below its first row groups too, but so do numbers that only some rows have.
    return min(groups, key=lambda one: (one.filled < rows, one.rank), default=None)


def _with_several_titles(rows: Iterable[Row], names: Collection[str], title: str) -> set[str]:
    """Return the columns of which neighbouring rows with one value differ in their title."""
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
    """Tell whether a column names the products but for a few rows that a person has to settle."""
    few = column.repeated * _MANY <= column.filled
    return bool(column.rank and column.repeated and few and not column.is_of_many_products)


def _stands_apart(column: Column, rows: Iterable[Row]) -> NoGuessError:
    """Name the rows that keep a column from being the id."""
    value = column.returned or ""
    return NoGuessError(
        f"no column can name the products; the nearest is '{column.name}', but {show(value)} stands"
        f" in rows {_numbers(rows, column, value)}, with others between",
        f"if rows with the same '{column.name}' are one product, sort the table by it: then"
        " init drafts group: for them; else give every product a number or short name of its own",
    )


def _numbers(rows: Iterable[Row], column: Column, value: str) -> str:
    same = (row.number for row in rows if row.cells and _text(row.cells, column.name) == value)
    numbers = list(itertools.islice(same, _ROWS_SHOWN + 1))
    return ", ".join(map(str, numbers[:_ROWS_SHOWN])) + ", …" * (len(numbers) > _ROWS_SHOWN)


def _text(cells: Mapping[str, Any], name: str) -> str:
    return str(cells.get(name, ""))


def _kind_of_rows(columns: list[Column]) -> tuple[Column, str] | None:
    """Return the column that tells rows of products from rows of their pictures, and its value."""
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
    """Return the column that says what is for sale, and the value that means it."""
    for column in sorted(filter(_says_state, columns), key=lambda one: _STATES.index(one.word)):
        for value in column.values or ():
            if value.lower() in _FOR_SALE:
                return column, value
    return None


def _says_state(column: Column) -> bool:
    return column.word in _STATES and column.values is not None and len(column.values) > 1


def _conditions(columns: list[Column]) -> Iterator[str]:
    """Yield what a product must be: for sale, and not a variation that repeats another."""
    state = _state(columns)
    if state is not None:
        yield f"{state[0].text_expression} == {quoted(state[1])}"
    kind = next((column for column in columns if column.name == "Type"), None)
    if kind is not None and kind.values is not None and "variation" in kind.values:
        yield f"{kind.text_expression} != 'variation'"


def _count_products(draft: Draft, rows: Iterable[Row], state: tuple[Column, str] | None) -> None:
    """Look again, now at products: which of them lack a title or pictures."""
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
    """Yield the cells of each product, the pictures of its rows in one list a column."""
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
    why = "a different one in every row"
    if draft.id is not None and not draft.id.rank:
        repeating = next((one for one in columns if one.rank and one.repeated), None)
        why += f"; '{repeating.name}' is not" if repeating is not None else ""
    if draft.group is not None:
        why = f"its neighbouring rows are one product ({draft.rows:,} rows)"
    elif draft.id is not None and draft.id.repeated:
        why = "by its name; see below"
    if draft.id is None:
        yield Guess("id", "the row's number", "no column names the products")
    else:
        yield Guess("id", draft.id.name, why)
    if draft.title is None:
        yield Guess("title", "none", "no column is called title or name; the prompt says 'product'")
    else:
        yield Guess("title", draft.title.name, "by its name; it stands in the prompt")
    for column in draft.pictures:
        what = "files" if column.files else "addresses"
        yield Guess("urls", column.name, f"{what} of pictures in {column.filled:,} rows")
    if draft.split is not None:
        yield Guess("split", repr(draft.split), "several pictures stand in one cell")
    if draft.conditions:
        why = f"{draft.taken:,} of {draft.products:,} products are like that"
        yield Guess("where", " and ".join(draft.conditions), why)


def _to_check(draft: Draft, columns: list[Column], rows: Iterable[Row]) -> Iterator[Guess]:
    """Name the rows that a person has to settle: ids that repeat, numbers that were shortened."""
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
    numbers: list[list[int]] = [[] for _ in asked]
    for row in rows if asked else ():
        for (column, value, _), places in zip(asked, numbers, strict=True):
            if len(places) <= _ROWS_SHOWN and row.cells and _text(row.cells, column.name) == value:
                places.append(row.number)
    for (column, value, why), places in zip(asked, numbers, strict=True):
        shown = ", ".join(map(str, places[:_ROWS_SHOWN])) + ", …" * (len(places) > _ROWS_SHOWN)
        rows_of = f"row{'s' * (len(places) > 1)} {shown}"
        yield Guess("check", column.name, f"{show(value)} in {rows_of} {why}")
