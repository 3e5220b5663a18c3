"""`init`: a first manifest, from a table or as a form to fill in; over nothing that is there."""

from __future__ import annotations

import re
from pathlib import Path

from batch_runner.arguments import Arguments
from batch_runner.commands.console import say
from batch_runner.errors import (
    ExitCode,
    InputMissingError,
    ManifestError,
    Problem,
    StorageError,
    UsageError,
)
from batch_runner.manifest.draft import write_draft, write_folder_draft, write_quickstart
from batch_runner.manifest.guesses import NoGuessError, draft_from_table
from batch_runner.table import TableError, TableForm


def execute(arguments: Arguments) -> int:
    """Write a manifest."""
    table = arguments.from_table
    path = arguments.draft or Path("batch.yaml" if table is None else f"{_stem(table)}.yaml")
    if path.exists():
        raise _in_the_way(path)
    text = write_quickstart(path) if table is None else _from_table(arguments, table, path)
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"the manifest cannot name a file whose name is not UTF-8: {table or path}",
            hint="rename it, and the folders above it, then run the same command again",
        ) from error
    try:
        with path.open("xb") as file:
            file.write(encoded)
    except FileExistsError as error:
        raise _in_the_way(path) from error
    except OSError as error:
        raise StorageError(
            f"{path}: {error.strerror}", hint="name a file in a folder that is there"
        ) from error
    print(path)
    say(f"next: batch-runner plan {path} --sandbox, then look at its prompts")
    return ExitCode.DONE


def _in_the_way(path: Path) -> UsageError:
    return UsageError(
        f"{path} is there already, and nothing is overwritten",
        hint="name another file: batch-runner init … other.yaml",
    )


def _stem(table: Path) -> str:
    """Return a table's name without its suffixes, as a file can be called."""
    stem = table.name.partition(".")[0]
    return stem or "batch"


def _from_table(arguments: Arguments, table: Path, manifest: Path) -> str:
    form = TableForm(
        encoding=arguments.encoding,
        delimiter=arguments.delimiter,
        escape=arguments.escape,
        sheet=arguments.sheet,
        header=arguments.header,
    )
    if table.is_dir():
        return _from_folder(table, manifest)
    if not table.exists():
        raise InputMissingError(f"{table}: no such file", hint="name a table, such as products.csv")
    notes: list[str] = []
    try:
        draft = draft_from_table(table, form, notes)
    except TableError as error:
        row = "" if error.row is None else f"row {error.row}: "
        # There is no manifest yet to write it into.
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
    counts = f"{_count(draft.rows, 'row')}, {_count(draft.products, 'product')}"
    say(f"{table}: {counts}; guessed from it:")
    for note in notes:
        say(f"  {note}")
    for guess in draft.guesses:
        say(f"  {guess.key:<6} {guess.taken} — {guess.why}")
    return write_draft(draft, table, manifest, form)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _from_folder(folder: Path, manifest: Path) -> str:
    notes: list[str] = []
    try:
        text, count = write_folder_draft(folder.absolute(), manifest, notes)
    except TableError as error:
        raise ManifestError([Problem(str(folder), None, error.message, error.hint)]) from error
    say(f"{folder}: {_count(count, 'picture')}")
    for note in notes:
        say(note)
    return text
