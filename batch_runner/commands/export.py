"""`export`: the batch as a table, one row a job and output, or one a product."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from batch_runner.arguments import Arguments
from batch_runner.batch import Batch
from batch_runner.commands.console import say
from batch_runner.commands.opening import load, run_options
from batch_runner.commands.wording import rehearsal_note
from batch_runner.disk import replacing
from batch_runner.errors import ExitCode, UsageError
from batch_runner.report.counting import counted
from batch_runner.report.export import FORMATS, Columns, write_table
from batch_runner.report.facts import Gathering, JobFacts


def execute(arguments: Arguments) -> int:
    """Write the table to a file as a whole, or to stdout."""
    kind = _kind(arguments.format, arguments.output)
    for name in ("bom", "delimiter"):
        if getattr(arguments, name) and kind != "csv":
            raise UsageError(f"--{name} is for CSV, not for {kind}", hint="leave it out")
    if kind == "parquet" and arguments.output is None and sys.stdout.isatty():
        raise UsageError("Parquet is not for a terminal", hint="add --output FILE")
    manifest = load(arguments)
    batch = Batch(manifest, run_options(arguments, manifest))
    note = rehearsal_note(arguments, "export", batch)
    if note is not None:
        say(note)
    columns = Columns(batch, wide=arguments.wide)
    if arguments.columns is not None:
        columns.choose(arguments.columns)
    facts: Iterable[JobFacts] = counted(
        Gathering(batch), total=columns.jobs, what="export", stream=sys.stderr
    )
    if arguments.state is not None:
        facts = (one for one in facts if one.state in arguments.state)
    bom, delimiter = arguments.bom, arguments.delimiter or ","
    if arguments.output is None:
        write_table(sys.stdout.buffer, kind, columns, facts, bom=bom, delimiter=delimiter)
        return ExitCode.DONE
    with replacing(arguments.output, durable=True) as file:
        write_table(file, kind, columns, facts, bom=bom, delimiter=delimiter)
    say(f"{columns.jobs:,} jobs in {arguments.output}")
    return ExitCode.DONE


def _kind(asked: str | None, output: Path | None) -> str:
    """Return the format: the one asked for, else by the file's name, else CSV."""
    if asked is not None:
        return asked
    suffix = output.suffix.lower().removeprefix(".") if output is not None else ""
    return suffix if suffix in FORMATS else "csv"
