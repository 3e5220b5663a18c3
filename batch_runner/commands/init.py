"""`init`: writes a first manifest, drafted from a table or as a form; never overwrites a file."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from batch_runner.commands.arguments import BatchArguments, character, count
from batch_runner.commands.console import say
from batch_runner.commands.draft import draft_of_form, draft_of_table
from batch_runner.errors import (
    ExitCode,
    InputMissingError,
    ManifestError,
    Problem,
    StorageError,
    UsageError,
)
from batch_runner.table import TableError, TableForm


class Arguments(BatchArguments):
    """The options of `init`."""

    draft: Path | None
    from_table: Path | None
    encoding: str | None
    sheet: str | None
    header: int
    delimiter: str | None


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Write a first manifest: a form to fill in, or with --from a draft for a table. Prints"
        " what it guessed. Never overwrites a file."
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
        help="a table of products (.csv, .tsv, .txt, .jsonl, also .gz; .xlsx, .parquet)",
    )
    form = parser.add_argument_group("if the table does not show it", "as the keys of images:")
    form.add_argument("--encoding", metavar="NAME", help="its encoding, such as cp1252")
    form.add_argument("--header", type=count, default=1, metavar="N", help="the row of the names")
    form.add_argument("--sheet", metavar="NAME", help="the sheet of an .xlsx")
    form.add_argument("--delimiter", type=character, metavar="CHAR", help="what separates cells")


def execute(arguments: Arguments) -> int:
    """Write a manifest; return the exit code."""
    table = arguments.from_table
    stem = "batch" if table is None else table.name.partition(".")[0] or "batch"
    path = arguments.draft or Path(f"{stem}.yaml")
    if path.exists():
        raise _in_the_way(path)
    text, guesses = draft_of_form(path), list[str]()
    if table is not None:
        text, guesses = _from_table(arguments, table, path)
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
    if guesses:
        say("Guesses:\n" + "\n".join(guesses))
    say(f"next: batch-runner plan {path} --sandbox, then edit its prompts")
    return ExitCode.DONE


def _in_the_way(path: Path) -> UsageError:
    return UsageError(
        f"{path} already exists, and init never overwrites a file",
        hint="name another file: batch-runner init … other.yaml",
    )


def _from_table(arguments: Arguments, table: Path, manifest: Path) -> tuple[str, list[str]]:
    """Return the text of a draft, and the guesses in it."""
    form = TableForm(
        encoding=arguments.encoding,
        delimiter=arguments.delimiter,
        sheet=arguments.sheet,
        header=arguments.header,
    )
    if not table.exists():
        raise InputMissingError(
            f"{table}: no such file", hint="name a table on this machine, such as products.csv"
        )
    if table.is_dir():
        raise UsageError(
            f"{table} is a folder, and init drafts manifests for tables",
            hint="copy jobs/photos.yaml, and name the folder in it, as in images: {from: photos/}",
        )
    try:
        return draft_of_table(table, manifest, form)
    except TableError as error:
        row = "" if error.row is None else f"row {error.row}: "
        # There is no manifest yet: the hint must name an option instead of a key.
        hint = re.sub(r"write (\w+): ?(\S*) under images", r"add --\1 \2", error.hint or "")
        hint = re.sub(r"(?:say )?header:(?: says)?", "--header N", hint)
        raise ManifestError(
            [Problem(str(table), error.line, row + error.message, hint or None)]
        ) from error
