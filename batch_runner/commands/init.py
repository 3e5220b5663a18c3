"""`init`: drafts a first manifest from a table; never overwrites a file.

Hides how columns are chosen: by their names, and pictures by the addresses in them. What always
holds: each choice is a line of the draft. Not promised: a right choice, or usable rows; `plan`
checks every row.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from batch_runner.commands.arguments import BatchArguments
from batch_runner.commands.console import say
from batch_runner.errors import (
    ExitCode,
    InputMissingError,
    ManifestError,
    Problem,
    UsageError,
)
from batch_runner.files.disk import storage_error
from batch_runner.jobs.product import listed_pictures
from batch_runner.manifest.template import column_expression
from batch_runner.table import TableError, TableForm, read_rows

_ROWS_READ = 1000
_TITLES = ("title", "producttitle", "productname", "name", "titel", "bezeichnung", "nombre")
# Exports of shops have several rows with one handle for each product.
_GROUPS = ("handle", "urlhandle")
_IDS = (
    *(*_GROUPS, "sku", "articlenumber", "artikelnummer", "itemnumber", "productid"),
    *("id", "asin", "ean", "gtin", "slug", "code", "reference", "ref"),
)
_NAMES_A_PICTURE = re.compile(r"image|img|photo|picture|bild|foto|imag[ei]n", re.IGNORECASE)
_ADDRESS = re.compile(r"https?://\S+", re.IGNORECASE)
_PICTURE_FILE = re.compile(r"\S+\.(?:jpe?g|png|webp|gif|avif|tiff?|bmp)(?:\?\S*)?", re.IGNORECASE)
_NEXT_ADDRESS = re.compile(r"\S(\s*[,|;]|\s)\s*https?://", re.IGNORECASE)


class Arguments(BatchArguments):
    draft: Path | None
    table: Path
    sheet: str | None


def declare(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Draft a manifest from the names of a table's columns. Read it before you run it. Never"
        " overwrites a file."
    )
    parser.add_argument(
        "draft",
        nargs="?",
        type=Path,
        metavar="MANIFEST",
        help="the file to write (default: named after the table)",
    )
    parser.add_argument(
        "--from",
        dest="table",
        type=Path,
        required=True,
        metavar="TABLE",
        help="a table of products (.csv, .tsv, .txt, .jsonl, .xlsx)",
    )
    parser.add_argument(
        "--sheet", metavar="NAME", help="the sheet of an .xlsx (default: the first)"
    )


def execute(arguments: Arguments) -> int:
    """Write a manifest; return the exit code."""
    table = arguments.table
    path = arguments.draft or Path(f"{table.name.partition('.')[0] or 'batch'}.yaml")
    if not table.is_file():
        raise InputMissingError(
            f"{table}: no such file",
            hint="name a table on this machine, such as products.csv; for a folder of pictures,"
            " copy jobs/photos.yaml",
        )
    if not str(table).isprintable():
        raise UsageError(
            f"{table}: a manifest cannot contain this name", hint="rename the file, or the folder"
        )
    columns = _read_columns(table, arguments.sheet)
    text = _draft(table, path, arguments.sheet, columns)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise UsageError(
            f"{path} already exists, and init never overwrites a file",
            hint="name another file: batch-runner init … other.yaml",
        ) from error
    except OSError as error:
        raise storage_error(path, error) from error
    print(path)
    say(f"next: read it, and change its prompts; then batch-runner plan {path} --sandbox")
    return ExitCode.DONE


def _read_columns(table: Path, sheet: str | None) -> dict[str, list[Any]]:
    """Return the filled cells of each column, by its name, from the first rows."""
    columns: dict[str, list[Any]] = {}
    try:
        for row in itertools.islice(read_rows(table, TableForm(sheet=sheet)), _ROWS_READ):
            for name, cell in row.cells.items():
                columns.setdefault(name, []).extend([] if cell == "" else [cell])
    except TableError as error:
        place = "" if error.row is None else f"row {error.row}: "
        hint = f"{error.hint} (in a copy of jobs/catalog.yaml)" if error.hint else None
        raise ManifestError(
            [Problem(str(table), error.line, place + error.message, hint)]
        ) from error
    return columns


def _draft(table: Path, path: Path, sheet: str | None, columns: dict[str, list[Any]]) -> str:
    """Return the text of the manifest; raises ManifestError if no column has pictures."""
    pictures = [name for name, cells in columns.items() if _has_pictures(name, cells)]
    if not pictures:
        what = f"no column has pictures; the columns are: {', '.join(columns) or 'none'}"
        hint = (
            "pictures are addresses such as https://…/mug.jpg, or files such as photos/mug.jpg; if"
            " the names of the columns are in another row, start from a copy of jobs/catalog.yaml,"
            " with header: N under images"
        )
        raise ManifestError([Problem(str(table), None, what, hint)])
    others = [name for name in columns if name not in pictures]
    title, id_, group = (_named(words, others) for words in (_TITLES, _IDS, _GROUPS))
    what = f'{{{{ {column_expression(title)} | default("product") }}}}' if title else "product"
    urls = ", ".join(_column(name) for name in pictures)
    any_picture = " or ".join(map(column_expression, pictures))
    lines = [
        f"  from: {_quoted(Path(os.path.relpath(table, path.parent)).as_posix())}",
        *([f"  sheet: {_quoted(sheet)}"] if sheet else []),
        *([f"  group: {_column(group)} # neighbouring rows of one product"] if group else []),
        f"  id: {_column(id_) if id_ else _quoted('row-{{ row }}')} # names each product's files",
        f"  urls: [{urls}]",
        *(f"  split: {_quoted(mark)}" for mark in _separators(columns, pictures)),
        "  pictures: 1 # the first of each product; without this line, all go into one job",
        f"  where: {_quoted(f'{{{{ {any_picture} }}}}')} # leaves out products without a picture",
        "  sample: 10 # tries 10 products; then remove this line: nothing is bought again",
    ]
    return f"""\
# Drafted by batch-runner init from {table.name}. Change any line.
version: 1
model: google/nano-banana-2/edit

# Every prompt is used with every product. {{{{ }}}} inserts a column of the table.
prompts:
  white: {_quoted(f"Put the {what} on a pure white background, soft shadow.")}
  # room: {_quoted(f"Show the {what} in a bright, tidy room, in daylight.")}

images:
{chr(10).join(lines)}

# One job for each value. Keep the quotes: without them, YAML reads 16:9 as a number.
# matrix:
#   aspect_ratio: ["1:1", "4:5"]

# How files are named, in a folder beside this file. To choose the folder, add dir: FOLDER.
output:
  path: '{{{{ image }}}}/{{{{ prompt }}}}'

limits:
  cost_usd: 5 # the budget: the batch never spends more, restarts included
"""


def _has_pictures(name: str, cells: Sequence[Any]) -> bool:
    """Return whether most cells begin with a picture, or with any address if named like one."""
    begins = [next(iter(_pictures(cell)), "") for cell in cells]
    found = sum(
        bool(_PICTURE_FILE.fullmatch(text))
        or bool(_NAMES_A_PICTURE.search(name) and _ADDRESS.fullmatch(text))
        for text in begins
    )
    return found * 2 > len(begins)


def _pictures(cell: Any) -> list[str]:
    if isinstance(cell, list | dict):
        return listed_pictures(cell)
    return re.split(r"[,|;\s]+(?=https?://|$)", str(cell))


def _separators(columns: dict[str, list[Any]], pictures: Sequence[str]) -> Iterator[str]:
    """Yield what separates several addresses in a cell, if some cell has several."""
    for cell in (cell for name in pictures for cell in columns[name] if isinstance(cell, str)):
        if found := _NEXT_ADDRESS.search(cell):
            yield found[1].strip() or found[1]
            return


def _named(words: Sequence[str], columns: Sequence[str]) -> str | None:
    """Return the column whose name comes first among some words."""
    named = [name for name in columns if _word(name) in words]
    return min(named, key=lambda name: words.index(_word(name)), default=None)


def _word(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _column(name: str) -> str:
    return _quoted(f"{{{{ {column_expression(name)} }}}}")


def _quoted(text: str) -> str:
    """Return a text in YAML's quotes: those that keep it readable."""
    if text.isprintable():
        return "'" + text.replace("'", "''") + "'"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    letters = (one if one.isprintable() else f"\\U{ord(one):08x}" for one in escaped)
    return f'"{"".join(letters)}"'
