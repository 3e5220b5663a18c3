"""`init`: writes a first manifest, drafted from a table or as a form; never overwrites a file."""

from __future__ import annotations

import argparse
import asyncio
import re
from decimal import Decimal
from pathlib import Path

from batch_runner.commands.arguments import BatchArguments, character, count
from batch_runner.commands.console import say
from batch_runner.commands.context import open_service
from batch_runner.commands.draft import (
    MODEL,
    with_budget,
    write_draft,
    write_folder_draft,
    write_quickstart,
)
from batch_runner.commands.environment import find_token
from batch_runner.commands.guesses import NoGuessError, draft_from_table
from batch_runner.errors import (
    ExitCode,
    InputMissingError,
    ManifestError,
    Problem,
    StorageError,
    UsageError,
)
from batch_runner.models.catalog import has_fixed_price, read_published
from batch_runner.table import TableError, TableForm
from batch_runner.text.quantity import counted


class Arguments(BatchArguments):
    """The options of `init`."""

    draft: Path | None
    from_table: Path | None
    encoding: str | None
    sheet: str | None
    header: int
    delimiter: str | None
    escape: str | None


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Write a first manifest: a form to fill in, or with --from a draft for a table or a folder"
        " of pictures. Prints every guess about the table's columns. Never overwrites a file."
    )
    parser.add_argument(
        "draft",
        nargs="?",
        type=Path,
        metavar="MANIFEST",
        help="the file to write (default: named after the table, or batch.yaml)",
    )
    parser.add_argument(
        "--from",
        dest="from_table",
        type=Path,
        metavar="TABLE",
        help="a table of products (.csv, .tsv, .txt, .jsonl, also .gz; .xlsx, .parquet), or a"
        " folder of pictures",
    )
    parser.add_argument(
        "--encoding", metavar="NAME", help="the table's encoding if it is not UTF-8, such as cp1252"
    )
    parser.add_argument(
        "--delimiter",
        type=character,
        metavar="CHAR",
        help="what separates the cells of a .csv or .txt, such as ';' or tab (default: whatever"
        " gives the rows as many cells as the header)",
    )
    parser.add_argument(
        "--escape",
        type=character,
        metavar="CHAR",
        help="what escapes a quote inside a cell, such as '\\' (default: quotes are doubled)",
    )
    parser.add_argument(
        "--sheet", metavar="NAME", help="the sheet of an .xlsx (default: the first visible one)"
    )
    parser.add_argument(
        "--header",
        type=count,
        default=1,
        metavar="N",
        help="the row that names the columns (default: 1)",
    )


def execute(arguments: Arguments) -> int:
    """Write a manifest; return the exit code."""
    table = arguments.from_table
    path = arguments.draft or Path("batch.yaml" if table is None else f"{_stem(table)}.yaml")
    if path.exists():
        raise _in_the_way(path)
    text = write_quickstart(path)
    if table is not None:
        text, jobs = _from_table(arguments, table, path)
        price_usd = asyncio.run(_price_usd(arguments)) if jobs else None
        text = text if price_usd is None else with_budget(text, jobs, price_usd)
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"a manifest cannot contain a file name that is not UTF-8: {table or path}",
            hint="rename the file, or the folder, then run the same command again",
        ) from error
    try:
        with path.open("xb") as file:
            file.write(encoded)
    except FileExistsError as error:
        raise _in_the_way(path) from error
    except OSError as error:
        raise StorageError(
            f"{path}: {error.strerror}", hint="name a file in an existing folder"
        ) from error
    print(path)
    say(f"next: batch-runner plan {path} --sandbox, then edit its prompts")
    return ExitCode.DONE


async def _price_usd(arguments: Arguments) -> Decimal | None:
    """Ask the service for the price of a job; None without a token or an answer."""
    if find_token() is None or not has_fixed_price(MODEL):
        return None
    async with open_service(arguments) as service:
        _, entry = await service.model(MODEL)
    price_usd = read_published(entry or {})[1]
    return price_usd or None


def _in_the_way(path: Path) -> UsageError:
    return UsageError(
        f"{path} already exists, and init never overwrites a file",
        hint="name another file: batch-runner init … other.yaml",
    )


def _stem(table: Path) -> str:
    """Return a table's name without its suffixes."""
    stem = table.name.partition(".")[0]
    return stem or "batch"


def _from_table(arguments: Arguments, table: Path, manifest: Path) -> tuple[str, int]:
    """Return the text of a draft, and how many jobs it has."""
    form = TableForm(
        encoding=arguments.encoding,
        delimiter=arguments.delimiter,
        escape=arguments.escape,
        sheet=arguments.sheet,
        header=arguments.header,
    )
    if table.is_dir():
        return _from_folder(table, manifest)
    if not table.exists() and table.parts[0].lower() in ("http:", "https:"):
        hint = "download it (a Google sheet: File, Download, CSV), then name the file"
        raise InputMissingError("cannot read a table from the web", hint=hint)
    if not table.exists():
        raise InputMissingError(f"{table}: no such file", hint="name a table, such as products.csv")
    notes: list[str] = []
    try:
        draft = draft_from_table(table, form, notes)
    except TableError as error:
        row = "" if error.row is None else f"row {error.row}: "
        # There is no manifest yet: the hint must name an option instead of a key.
        hint = re.sub(
            r"write (encoding|escape|delimiter): ?(\S*) under images",
            lambda found: f"add --{found[1]} {found[2] or 'CHAR'}",
            error.hint or "",
        )
        hint = hint.replace("header: says", "--header says").replace(
            "say header:", "add --header N"
        )
        raise ManifestError(
            [Problem(str(table), error.line, row + error.message, hint or None)]
        ) from error
    except NoGuessError as error:
        for note in notes:
            say(note)
        raise ManifestError([Problem(str(table), None, error.what, error.hint)]) from error
    counts = f"{counted(draft.rows, 'row')}, {counted(draft.products, 'product')}"
    say(f"{table}: {counts}. Guesses:")
    for note in notes:
        say(f"  {note}")
    for guess in draft.guesses:
        say(f"  {guess.key:<6} {guess.taken} ({guess.why})")
    return write_draft(draft, table, manifest, form), draft.products


def _from_folder(folder: Path, manifest: Path) -> tuple[str, int]:
    notes: list[str] = []
    try:
        text, count = write_folder_draft(folder.absolute(), manifest, notes)
    except TableError as error:
        raise ManifestError([Problem(str(folder), None, error.message, error.hint)]) from error
    say(f"{folder}: {counted(count, 'picture')}")
    for note in notes:
        say(note)
    return text, count
