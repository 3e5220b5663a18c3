"""A first manifest, drafted from what a table holds.

Hides the guesses: which column is the id, the title, the pictures, what tells a product that is for
sale. What always holds: the whole table is looked at, in constant memory; every guess has a reason
that a person can check; what is written is a valid manifest that runs in the sandbox, unless rows
of the table itself cannot be used. Not promised: that the guesses are right.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from batch_runner.distinct import Distinct
from batch_runner.expansion.product import ID_LIMIT_CHARACTERS, split_cell
from batch_runner.manifest.template import column_expression
from batch_runner.manifest.validation import show
from batch_runner.table import Row, TableForm, read_rows

MODEL = "google/nano-banana-2/edit"
SAMPLE = 10

_IDS = (
    "sku",
    "handle",
    "urlhandle",
    "articlenumber",
    "artikelnummer",
    "itemnumber",
    "productid",
    "id",
)
_IDS_TOO = ("asin", "code", "ean", "gtin", "slug", "reference", "ref", "item", "article", "key")
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
_PICTURES = re.compile(r"image|img|photo|picture|bild|foto|imag[ei]n|thumb", re.IGNORECASE)
_PICTURE_NAME = re.compile(
    r"[^\s<>]+\.(?:jpe?g|png|webp|gif|avif|tiff?|bmp)(?:[?#]\S*)?", re.IGNORECASE
)
_ADDRESS = re.compile(r"https?://\S+", re.IGNORECASE)
_NO_ID = re.compile(r"[\\\x00-\x1f]|://|//|^/|/$")
_SEPARATORS = (",", "|", ";", "\n", " ")
_VALUES_KEPT = 6
_ROWS_SHOWN = 3


class Column:
    """What one column holds, in figures that do not grow with the table.

    `repeats` tells that a value comes more than once, `returned` is the first that comes again
    after others: what repeats and does not return groups neighbouring rows.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.filled = 0
        self.pictures = 0
        self.plain_http = 0
        self.files = 0
        self.is_text = True
        self.most_in_a_cell = 0
        self.separators: Counter[str] = Counter()
        self.can_be_id = True
        self.has_slash = False
        self.repeats = False
        self.returned: str | None = None
        self.values: Counter[str] | None = Counter()
        self._seen = Distinct()
        self._last: str | None = None

    def add(self, value: Any) -> None:
        """Take in the value of one row."""
        if value == "":
            return
        self.filled += 1
        self.is_text = self.is_text and isinstance(value, str)
        texts = [str(one) for one in value] if isinstance(value, list) else [str(value)]
        text = texts[0] if texts else ""
        if isinstance(value, list) or len(text) > ID_LIMIT_CHARACTERS or _NO_ID.search(text):
            self.can_be_id = False
        self.has_slash = self.has_slash or "/" in text
        self._look_for_pictures(texts, is_list=isinstance(value, list))
        if self.values is not None:
            self.values[text[:50]] += 1
            self.values = self.values if len(self.values) <= _VALUES_KEPT else None
        if self.can_be_id and self.returned is None:
            if text == self._last:
                self.repeats = True
            elif not self._seen.add(text):
                self.returned = text
            self._last = text

    def _look_for_pictures(self, texts: list[str], *, is_list: bool) -> None:
        found = texts
        if not is_list and len(texts) == 1:
            found, separator = split_pictures(texts[0])
            if len(found) > 1:
                self.separators[separator] += 1
        by_name = bool(_PICTURES.search(self.name))
        pictures = [text for text in found if _is_picture(text, named_so=by_name)]
        if pictures and len(pictures) == len(found):
            self.pictures += 1
            self.most_in_a_cell = max(self.most_in_a_cell, len(pictures))
            self.plain_http += any(text.lower().startswith("http://") for text in pictures)
            self.files += any("://" not in text for text in pictures)

    @property
    def distinct(self) -> int:
        """Return how many values there were until one came again after others."""
        return len(self._seen)

    @property
    def word(self) -> str:
        """Return the name as it is compared: without case, blanks and signs."""
        folded = self.name.lower().replace("ö", "o")
        return re.sub(r"[^a-z0-9]", "", folded)

    @property
    def expression(self) -> str:
        """Return the column as a template names it."""
        return column_expression(self.name)

    @property
    def text_expression(self) -> str:
        """Return the same as text, for comparing."""
        return self.expression if self.is_text else f"{self.expression} | string"


class NoGuessError(Exception):
    """A table in which no pictures, or no id, can be found; says what is there."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


class Guess(msgspec.Struct, frozen=True):
    """One guess: the manifest's key, what was taken, and why."""

    key: str
    taken: str
    why: str


class Draft(msgspec.Struct, kw_only=True):
    """What was found in a table, and what was guessed from it."""

    rows: int
    id: Column
    title: Column | None
    pictures: list[Column]
    is_grouped: bool
    split: str | None
    conditions: list[str]
    products: int = 0
    taken: int = 0
    most_pictures: int = 0
    is_title_missing: bool = False
    guesses: list[Guess] = []


def draft_from_table(path: Path, form: TableForm, notes: list[str]) -> Draft:
    """Look at a whole table and guess; raises TableError and NoGuessError."""
    columns: dict[str, Column] = {}
    rows = 0
    for row in read_rows(path, form, notes):
        rows += bool(row.cells)
        for name, value in row.cells.items():
            columns.setdefault(name, Column(name)).add(value)
    found = list(columns.values())
    if rows == 0:
        hint = (notes or ["export it again with its rows"])[-1]
        raise NoGuessError(f"table '{path}' has no rows", hint)
    pictures = _find_pictures(found)
    title = _find_title(found)
    id_ = _find_id(found, rows, title)
    if id_ is None:
        raise _no_id(found, read_rows(path, form))
    separators = sum((column.separators for column in pictures), Counter[str]())
    draft = Draft(
        rows=rows,
        id=id_,
        title=title,
        pictures=pictures,
        is_grouped=id_.repeats or id_.filled < rows,
        split=separators.most_common(1)[0][0] if separators else None,
        conditions=list(_conditions(columns)),
    )
    _count_products(draft, read_rows(path, form), _state(found))
    draft.guesses = list(_explain(draft))
    return draft


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


def _find_id(columns: list[Column], rows: int, title: Column | None) -> Column | None:
    """Prefer a name that says it, and what differs in every row over what groups rows.

    Where rows have no title, though, they belong to the one above: then what groups them comes
    first, though each may have a number of its own, as the variants of a product do.
    """
    usable = [
        column
        for column in columns
        if column.can_be_id and column.filled and column.returned is None and not column.pictures
    ]
    differs = [column for column in usable if column.filled == rows and not column.repeats]
    groups = [column for column in usable if column not in differs and _rank(column)]
    named = min(filter(_rank, differs), key=_rank, default=None)
    # What is empty below its first row groups too, but so do numbers that only some rows have.
    grouping = min(groups, key=lambda one: (one.filled < rows, _rank(one)), default=None)
    if grouping is not None and grouping.filled == rows and title and title.filled < rows:
        return grouping
    return named or grouping or next(iter(differs), None)


def _no_id(columns: list[Column], rows: Iterable[Row]) -> NoGuessError:
    """Say which column comes nearest to naming the products, and the rows that speak against it."""
    usable = [column for column in columns if column.can_be_id and not column.pictures]
    what = "no column can name the products"
    if not usable:
        hint = "add a column with a number or a short name of its own for every product"
        return NoGuessError(what, hint)
    # The first of those that sound like an id, else the one that names the most.
    nearest = min(usable, key=lambda one: (_rank(one) or 100, -one.filled, -one.distinct))
    value = nearest.returned or ""
    same = (row.number for row in rows if row.cells and _text(row.cells, nearest.name) == value)
    numbers = list(itertools.islice(same, _ROWS_SHOWN))
    if not value:
        return NoGuessError(
            f"{what}; the nearest is '{nearest.name}', which is empty in row {numbers[0]}",
            "fill it in; or write the manifest by hand: with group: rows are one product with"
            " the one above where that column is empty",
        )
    return NoGuessError(
        f"{what}; the nearest is '{nearest.name}', but {show(value)} stands in rows"
        f" {', '.join(map(str, numbers))}, with others between",
        f"if rows with the same '{nearest.name}' are one product, sort the table by it: then"
        " init drafts group: for them; else give every product a number or short name of its own",
    )


def _text(cells: Mapping[str, Any], name: str) -> str:
    return str(cells.get(name, ""))


def _rank(column: Column) -> int:
    """Return how much a name sounds like an id: 1 the most, 0 not at all."""
    word = column.word
    for rank, name in enumerate((*_IDS, *_IDS_TOO), start=1):
        if word == name:
            return rank
    return 99 if word.endswith(("sku", "handle", "id", "number", "nummer")) else 0


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


def _conditions(columns: Mapping[str, Column]) -> Iterator[str]:
    """Yield what a product must be: for sale, and not a variation that repeats another."""
    state = _state(list(columns.values()))
    if state is not None:
        yield f"{state[0].text_expression} == {_quoted(state[1])}"
    kind = columns.get("Type")
    if kind is not None and kind.values is not None and "variation" in kind.values:
        yield f"{kind.text_expression} != 'variation'"


def _count_products(draft: Draft, rows: Iterable[Row], state: tuple[Column, str] | None) -> None:
    """Look again, now at products: which of them lack a title or pictures."""
    lacks_pictures = False
    for cells in _products(draft, rows):
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


def _products(draft: Draft, rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    """Yield the cells of each product, the pictures of its rows in one list a column."""
    lists = {column.name for column in draft.pictures}
    cells: dict[str, Any] = {}
    for row in rows:
        if not row.cells:
            continue
        id_ = row.cells.get(draft.id.name, "")
        if cells and not (draft.is_grouped and id_ in ("", cells.get(draft.id.name))):
            yield cells
            cells = {}
        for name, value in row.cells.items():
            if name in lists and value != "":
                cells.setdefault(name, [])
                cells[name] += value if isinstance(value, list) else split_pictures(value)[0]
            elif cells.get(name, "") == "":
                cells[name] = value
    if cells:
        yield cells


def _picture_count(value: Any) -> int:
    return len(set(map(str, value))) if isinstance(value, list) else 0


def _explain(draft: Draft) -> Iterator[Guess]:
    why = "a different one in every row"
    if draft.is_grouped:
        why = f"its neighbouring rows are one product ({draft.rows:,} rows)"
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


def write_draft(draft: Draft, table: Path, manifest: Path, form: TableForm) -> str:
    """Return the text of a manifest at that place for that table."""
    relative = Path(os.path.relpath(table, manifest.parent)).as_posix()
    what = "product"
    if draft.title is not None:
        default = ' | default("product")' if draft.is_title_missing else ""
        what = f"{{{{ {draft.title.expression}{default} }}}}"
    prompts = [
        f"Put the {what} on a pure white background, soft shadow. Keep its colors exactly.",
        f"Show the {what} in a bright, tidy room, in daylight.",
    ]
    lines = [
        *_head(f"from {table.name}", manifest),
        "# Every prompt is combined with every product. Columns of the table stand in {{ }}.",
        "prompts:",
        f"  white: {_yaml(prompts[0])}",
        f"  # room: {_yaml(prompts[1])}",
        "",
        "images:",
        f"  from: {_yaml(relative)}",
        *_form_lines(form),
        *_image_lines(draft),
        "",
        "# One job for every value; in quotes, because YAML reads 16:9 as a number.",
        "# matrix:",
        '#   aspect_ratio: ["1:1", "4:5"]',
        "",
        *_OUTPUT,
    ]
    return "\n".join(lines) + "\n"


def write_folder_draft(folder: Path, manifest: Path, notes: list[str]) -> tuple[str, int]:
    """Return the text of a manifest for a folder of pictures, and how many there are.

    Raises TableError.
    """
    cells = [row.cells for row in read_rows(folder, TableForm(pattern="**/*"), notes)]
    stems = [one["stem"] for one in cells]
    id_ = "stem" if len(set(stems)) == len(stems) else 'path | replace("/", "-")'
    relative = Path(os.path.relpath(folder, manifest.absolute().parent)).as_posix()
    is_deep = any(one["folder"] for one in cells)
    lines = [
        *_head(f"from the folder {folder.name}", manifest),
        "# What to do with each picture: every prompt is combined with every one.",
        "prompts:",
        "  white: Put the product on a pure white background with a soft shadow.",
        "  # sunset: Put the product on a beach at sunset, in warm light.",
        "",
        "# The sandbox reads files of this machine. The service does not: for it name a bucket,",
        "# into which each of them is put once.",
        "# uploads: s3://my-bucket/pictures",
        "images:",
        f"  from: {_yaml(relative + ('/**' if is_deep else '/'))}",
        f"  id: {_yaml(f'{{{{ {id_} }}}}')} # or of name, path, folder, suffix",
    ]
    if len(cells) > SAMPLE:
        lines += _SAMPLE_LINES
    return "\n".join([*lines, "", *_OUTPUT]) + "\n", len(cells)


def write_quickstart(manifest: Path) -> str:
    """Return the text of a manifest without a table: the form to fill in."""
    return "\n".join(
        [
            *_head("to begin with", manifest),
            "# What to do with each picture. Every prompt is combined with every image.",
            "prompts:",
            "  white: Put the product on a pure white background with a soft shadow.",
            "  sunset: Put the product on a beach at sunset, in warm light.",
            "",
            "# What to do it to: public https addresses, which the service fetches. The sandbox",
            "# draws something in their place. For many products: batch-runner init --from TABLE",
            "images:",
            "  mug: https://cdn.example.com/mug.jpg",
            "  lamp:",
            "    - https://cdn.example.com/lamp.jpg",
            "    - https://cdn.example.com/lamp-detail.jpg",
            "",
            *_OUTPUT,
            "",
        ]
    )


_OUTPUT = (
    "# Where the pictures go: a folder named after this file, beside it, unless you say another.",
    "output:",
    "  path: '{{ image }}/{{ prompt }}'",
    "",
    "# What a run may spend; more is not bought, restarts included.",
    "# limits:",
    "#   cost_usd: 5",
)


_SAMPLE_LINES = (
    f"  sample: {SAMPLE} # try the prompts on so many of them first, then remove this:",
    "  # what is done by then is not bought again",
)


def _head(what: str, manifest: Path) -> list[str]:
    return [
        f"# Drafted by batch-runner init {what}; every line is yours to change.",
        "#",
        f"#     batch-runner plan {manifest.name} --sandbox    what it would do and cost",
        f"#     batch-runner run {manifest.name} --sandbox     a rehearsal, for free",
        "version: 1",
        f"model: {MODEL}",
        "",
    ]


def _form_lines(form: TableForm) -> Iterator[str]:
    if form.header != 1:
        yield f"  header: {form.header} # the row that names the columns"
    for name in ("encoding", "delimiter", "escape", "sheet"):
        value = getattr(form, name)
        if value is not None:
            yield f"  {name}: {_yaml(value)}"


def _image_lines(draft: Draft) -> Iterator[str]:
    group = f"{{{{ {draft.id.expression} }}}}"
    # A slash would make a folder.
    replaced = ' | replace("/", "-")' if draft.id.has_slash else ""
    id_ = f"{{{{ {draft.id.expression}{replaced} }}}}"
    if draft.is_grouped:
        yield f"  group: {_yaml(group)} # neighbouring rows with one value are one product"
    yield f"  id: {_yaml(id_)} # names the files; a different one for every product"
    urls = [_yaml(_url_template(column)) for column in draft.pictures]
    yield f"  urls: {urls[0] if len(urls) == 1 else '[' + ', '.join(urls) + ']'}"
    if draft.split is not None:
        yield f"  split: {json.dumps(draft.split)} # several pictures in one cell"
    if draft.conditions:
        where = _yaml(f"{{{{ {' and '.join(draft.conditions)} }}}}")
        yield f"  where: {where} # leaves the others out"
    if draft.most_pictures > 1:
        yield "  pictures: 1 # only the first one of each product; without this line all of them go"
        yield "  # into one job, and with `each: picture` instead every picture is a job of its own"
    if draft.taken > SAMPLE:
        yield from _SAMPLE_LINES


def _url_template(column: Column) -> str:
    if column.plain_http:
        # The service fetches only https, and hosts that serve one mostly serve the other.
        return f'{{{{ {column.expression} | replace("http://", "https://") }}}}'
    return f"{{{{ {column.expression} }}}}"


def split_pictures(text: str) -> tuple[list[str], str]:
    """Return the pictures that one cell names, and what separates them."""
    for separator in _SEPARATORS:
        parts = split_cell(text, separator)
        if len(parts) > 1 and all(_is_picture(part, named_so=True) for part in parts):
            return parts, separator
    return ([text] if text.strip() else []), ","


def _is_picture(text: str, *, named_so: bool) -> bool:
    """Tell whether a text is the address or file of a picture, by its end or its column's name."""
    if _PICTURE_NAME.fullmatch(text):
        return True
    return named_so and _ADDRESS.fullmatch(text) is not None


def _quoted(text: str) -> str:
    """Return a text as a template writes it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _yaml(text: str) -> str:
    """Return a text in the quotes of YAML that leave it readable; in single ones all else is plain.

    A control character, which some column's name may hold, can only be written in double ones.
    """
    if not text.isprintable():
        return f'"{"".join(map(_escaped, text))}"'
    if "'" in text and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return "'" + text.replace("'", "''") + "'"


def _escaped(letter: str) -> str:
    if letter in '"\\':
        return f"\\{letter}"
    return letter if letter.isprintable() else f"\\U{ord(letter):08x}"
