"""The text of a first manifest: a form to fill in, or a draft for a table.

Hides how the columns of a table are guessed: by their names and the first thousand rows. What
always holds: every guess is a line of the draft, with a comment where a person must look. Not
promised: a right guess, or usable rows; `plan` checks every row.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from batch_runner.errors import ManifestError, Problem
from batch_runner.jobs.product import ID_LIMIT_CHARACTERS, listed_pictures, split_cell
from batch_runner.manifest.template import column_expression, quoted
from batch_runner.table import TableForm, read_rows

MODEL = "google/nano-banana-2/edit"
SAMPLE = 10
ROWS_READ = 1000

_TITLES = ("title", "producttitle", "productname", "name", "titel", "bezeichnung", "nombre")
_IDS = (
    *("sku", "handle", "urlhandle", "articlenumber", "artikelnummer", "itemnumber", "productid"),
    *("id", "asin", "ean", "gtin", "slug", "code", "reference", "ref"),
)
_STATES = ("status", "published", "state", "active")
_FOR_SALE = ("active", "published", "true", "1", "yes", "live", "aktiv", "ja", "activo", "sí")
_NAMES_A_PICTURE = re.compile(r"image|img|photo|picture|bild|foto|imag[ei]n", re.IGNORECASE)
_PICTURE_FILE = re.compile(
    r"[^\s<>]+\.(?:jpe?g|png|webp|gif|avif|tiff?|bmp)(?:[?#]\S*)?", re.IGNORECASE
)
_ADDRESS = re.compile(r"https?://\S+", re.IGNORECASE)
_SEPARATORS = (",", "|", ";", "\n", " ")

_OUTPUT = (
    "# How files are named, in a folder beside this file. To choose the folder, add dir: FOLDER.",
    "output:",
    "  path: '{{ image }}/{{ prompt }}'",
    "",
    "limits:",
    "  cost_usd: 5 # the budget: the batch never spends more, restarts included",
)
_SAMPLE_LINES = (
    f"  sample: {SAMPLE} # tries the prompts on {SAMPLE} of them first; then remove this line:",
    "  # finished jobs are not bought again",
)


class Column(NamedTuple):
    """The cells of a column, one for each row that was read; "" is an empty one."""

    name: str
    cells: list[Any]

    @property
    def word(self) -> str:
        """The name in lower case, without blanks and signs, for comparison."""
        return re.sub(r"[^a-z0-9]", "", self.name.lower())

    @property
    def filled(self) -> list[Any]:
        """The cells that are not empty."""
        return [cell for cell in self.cells if cell != ""]

    @property
    def expression(self) -> str:
        """The column in a template."""
        return column_expression(self.name)


def draft_of_form(manifest: Path) -> str:
    """Return the text of a manifest without a table: the form to fill in."""
    return _text(
        "to begin with",
        manifest,
        [
            "# What to do with each picture. Every prompt is used with every picture.",
            "prompts:",
            "  white: Put the product on a pure white background with a soft shadow.",
            "  sunset: Put the product on a beach at sunset, in warm light.",
            "",
            "# The pictures: public https addresses that the service can fetch. The sandbox draws",
            "# its own pictures instead. For many products: batch-runner init --from TABLE",
            "images:",
            "  mug: https://cdn.example.com/mug.jpg",
            "  lamp:",
            "    - https://cdn.example.com/lamp.jpg",
            "    - https://cdn.example.com/lamp-detail.jpg",
        ],
    )


def draft_of_table(table: Path, manifest: Path, form: TableForm) -> tuple[str, list[str]]:
    """Return the text of a manifest for a table, and its guesses.

    Raises TableError, and ManifestError if no column has pictures.
    """
    rows = [row for row in itertools.islice(read_rows(table, form), ROWS_READ) if row.cells]
    names = dict.fromkeys(name for row in rows for name in row.cells)
    columns = [Column(name, [row.cells.get(name, "") for row in rows]) for name in names]
    pictures = [column for column in columns if _has_pictures(column)]
    if not pictures:
        raise ManifestError([_without_pictures(table, columns)])
    title = _first(_TITLES, columns)
    what = f'{{{{ {title.expression} | default("product") }}}}' if title else "product"
    images = [
        f"  from: {_yaml(_relative(table, manifest))}",
        *_form_lines(form),
        *_id_lines(columns, title),
        *_picture_lines(pictures),
        *_where_lines(columns, pictures),
        *(_SAMPLE_LINES if len(rows) > SAMPLE else ()),
    ]
    body = [
        "# Every prompt is used with every product. {{ }} inserts a column of the table.",
        "prompts:",
        f"  white: {_yaml(f'Put the {what} on a pure white background, soft shadow.')}",
        f"  # room: {_yaml(f'Show the {what} in a bright, tidy room, in daylight.')}",
        "",
        "images:",
        *images,
        "",
        "# One job for each value. Keep the quotes: without them, YAML reads 16:9 as a number.",
        "# matrix:",
        '#   aspect_ratio: ["1:1", "4:5"]',
    ]
    return _text(f"from {table.name}", manifest, body), images


def _text(origin: str, manifest: Path, body: Iterable[str]) -> str:
    head = [
        f"# Drafted by batch-runner init {origin}. Change any line.",
        "#",
        f"#     batch-runner plan {manifest.name} --sandbox    shows what it would do",
        f"#     batch-runner run {manifest.name} --sandbox     rehearses it, for free",
        "version: 1",
        f"model: {MODEL}",
        "",
    ]
    return "\n".join([*head, *body, "", *_OUTPUT]) + "\n"


def _without_pictures(table: Path, columns: Sequence[Column]) -> Problem:
    names = ", ".join(column.name for column in columns[:20])
    what = f"no column has pictures; the columns are: {names}" if names else "the table has no rows"
    hint = (
        "pictures are addresses such as https://…/mug.jpg, or files such as photos/mug.jpg; if the"
        " column names are in another row, add --header N; if these are several columns, add"
        " --delimiter CHAR"
    )
    return Problem(str(table), None, what, hint)


def _first(words: Sequence[str], columns: Iterable[Column]) -> Column | None:
    """Return the column whose name comes first among some words."""
    named = [column for column in columns if column.word in words and column.filled]
    return min(named, key=lambda column: words.index(column.word), default=None)


def _form_lines(form: TableForm) -> list[str]:
    lines = [f"  header: {form.header} # the row with the column names"] if form.header != 1 else []
    given = {name: getattr(form, name) for name in ("encoding", "delimiter", "sheet")}
    return lines + [f"  {name}: {_yaml(value)}" for name, value in given.items() if value]


def _id_lines(columns: Sequence[Column], title: Column | None) -> list[str]:
    """Guess what names a product: a column named so comes first, then the title, then the row."""
    count = len(columns[0].cells)
    named = [column for column in columns if column.word in _IDS and _can_be_id(column)]
    named.sort(key=lambda column: _IDS.index(column.word))
    whole = [column for column in named if len(column.filled) == count]
    single = [column for column in whole if _differs(column)]
    groups = [column for column in whole if column not in single and _groups(column, title)]
    # A row without a title belongs to the row above, whatever number of its own it has.
    is_listed_below = title is not None and len(title.filled) < count
    for column in (*groups, *single) if is_listed_below else (*single, *groups):
        lines = [f"  id: {_id(column)} # names the files, so it must differ for every product"]
        if column in groups:
            group = _yaml(f"{{{{ {column.expression} }}}}")
            why = "check this: neighbouring rows with the same value become one product"
            lines.insert(0, f"  group: {group} # {why}")
        return lines
    if whole:
        why = "check this: some rows have the same value; plan lists them"
        return [f"  id: {_id(whole[0])} # {why}"]
    why = "no column is named like an id"
    if named:
        why = f"'{named[0].name}' is empty in some rows"
    if title and _can_be_id(title) and len(title.filled) == count and _differs(title):
        return [f"  id: {_id(title)} # check this: {why}, and the titles differ"]
    return [f"  id: 'row-{{{{ row }}}}' # check this: the row's number, because {why}"]


def _can_be_id(column: Column) -> bool:
    return not any(
        isinstance(cell, list | dict)
        or len(text := str(cell)) > ID_LIMIT_CHARACTERS
        or "://" in text
        or not text.isprintable()
        for cell in column.filled
    )


def _differs(column: Column) -> bool:
    return len(set(map(str, column.filled))) == len(column.filled)


def _groups(column: Column, title: Column | None) -> bool:
    """Return whether rows with the same value are neighbours that have one title."""
    cells, titles = column.cells, column.cells if title is None else title.cells
    pairs = zip(map(str, cells), map(str, titles), strict=True)
    runs = [{shown for _, shown in run} for _, run in itertools.groupby(pairs, lambda one: one[0])]
    return len(runs) == len(set(map(str, cells))) and all(len(run - {""}) < 2 for run in runs)


def _id(column: Column) -> str:
    # A slash would create a folder.
    has_slash = any("/" in str(cell) for cell in column.filled)
    replaced = ' | replace("/", "-")' if has_slash else ""
    return _yaml(f"{{{{ {column.expression}{replaced} }}}}")


def _has_pictures(column: Column) -> bool:
    is_named_so = bool(_NAMES_A_PICTURE.search(column.name))
    separator = _separator([column])
    found = sum(
        bool(texts) and all(_is_picture(text, is_named_so=is_named_so) for text in texts)
        for texts in (_listed(cell, separator) for cell in column.filled)
    )
    return found * 2 > len(column.filled)


def _listed(cell: Any, separator: str | None) -> list[str]:
    if isinstance(cell, list | dict):
        return listed_pictures(cell)
    return split_cell(str(cell), separator)


def _is_picture(text: str, *, is_named_so: bool) -> bool:
    return bool(_PICTURE_FILE.fullmatch(text) or (is_named_so and _ADDRESS.fullmatch(text)))


def _separator(columns: Iterable[Column]) -> str | None:
    """Return what separates several pictures in a cell, if some cell has several."""
    for separator in _SEPARATORS:
        for cell in (cell for column in columns for cell in column.filled):
            parts = split_cell(cell, separator) if isinstance(cell, str) else []
            if len(parts) > 1 and all(_is_picture(part, is_named_so=True) for part in parts):
                return separator
    return None


def _picture_lines(pictures: Sequence[Column]) -> list[str]:
    urls = [_yaml(f"{{{{ {column.expression} }}}}") for column in pictures]
    lines = [f"  urls: {urls[0] if len(urls) == 1 else '[' + ', '.join(urls) + ']'}"]
    separator = _separator(pictures)
    if separator is not None:
        lines.append(f"  split: {_yaml(separator)} # separates several pictures in one cell")
    return [
        *lines,
        "  pictures: 1 # the first picture of each product; without this line, all go into one",
        "  # job; with `each: picture` instead, each picture gets its own job",
    ]


def _where_lines(columns: Sequence[Column], pictures: Sequence[Column]) -> list[str]:
    """Guess which products to leave out: those that are not for sale or have no picture."""
    conditions = []
    state = _first(_STATES, columns)
    values = [] if state is None else [cell for cell in state.filled if isinstance(cell, str)]
    for_sale = next((value for value in values if value.lower() in _FOR_SALE), None)
    if state is not None and for_sale is not None and len(set(values)) > 1:
        conditions.append(f"{state.expression} == {quoted(for_sale)}")
    if not all(any(cells) for cells in zip(*(column.cells for column in pictures), strict=True)):
        either = " or ".join(column.expression for column in pictures)
        conditions.append(f"({either})" if conditions and len(pictures) > 1 else either)
    if not conditions:
        return []
    where = _yaml(f"{{{{ {' and '.join(conditions)} }}}}")
    return [f"  where: {where} # check this: leaves the other products out"]


def _relative(path: Path, manifest: Path) -> str:
    return Path(os.path.relpath(path, manifest.parent)).as_posix()


def _yaml(text: str) -> str:
    """Return a text in YAML's quotes: those that keep it readable."""
    if text.isprintable() and ('"' in text or "\\" in text or "'" not in text):
        return "'" + text.replace("'", "''") + "'"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    letters = (one if one.isprintable() else f"\\U{ord(one):08x}" for one in escaped)
    return f'"{"".join(letters)}"'
