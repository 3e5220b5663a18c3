"""`export`: writes the results as a table, with a row for each file out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from batch_runner.commands.arguments import BatchArguments, add_batch_options
from batch_runner.commands.console import say
from batch_runner.commands.looking import read_live
from batch_runner.errors import ExitCode
from batch_runner.files.disk import replacing
from batch_runner.report.export import FORMATS, Columns, write_table
from batch_runner.report.progress import tracked


class Arguments(BatchArguments):
    format: str | None
    accepted: bool
    output: Path | None


def declare(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write a table with a row for each file out, and all columns of your own table. A job's"
        " cost is in the row of its first file. Needs no network."
    )
    add_batch_options(parser, json=False)
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="the format (default: as --output is named, or csv)",
    )
    parser.add_argument("--accepted", action="store_true", help="only files that a person accepted")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write to FILE, replacing it (default: print)"
    )


def execute(arguments: Arguments) -> int:
    """Write the table to a file, whole or not at all, or to stdout."""
    suffix = "" if arguments.output is None else arguments.output.suffix.lower().removeprefix(".")
    kind = arguments.format or (suffix if suffix in FORMATS else "csv")
    live = read_live(arguments, is_needed=False)
    columns = Columns(live.batch)
    details = tracked(live.details(), "export", total=columns.jobs)
    if arguments.output is None:
        write_table(sys.stdout.buffer, kind, columns, details, accepted=arguments.accepted)
        return ExitCode.DONE
    with replacing(arguments.output, durable=True) as file:
        write_table(file, kind, columns, details, accepted=arguments.accepted)
    say(f"wrote {columns.jobs:,} jobs to {arguments.output}")
    return ExitCode.DONE
