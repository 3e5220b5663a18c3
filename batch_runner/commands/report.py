"""`report`: writes a page with all pictures, in a folder that a browser opens from the disk."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from batch_runner import PROGRAM
from batch_runner.commands.arguments import BatchArguments, add_batch_options
from batch_runner.commands.console import say
from batch_runner.commands.context import read_batch
from batch_runner.commands.output import command_again, report_rehearsal
from batch_runner.errors import ExitCode
from batch_runner.records import utc_now
from batch_runner.report.details import BatchDetails
from batch_runner.report.page import FOLDER, Advice, Head, write_page
from batch_runner.report.progress import tracked
from batch_runner.report.remote import fetch_remote_pictures
from batch_runner.report.status import Status, status
from batch_runner.report.thumbnail import Thumbnails
from batch_runner.run.batch import Batch


class Arguments(BatchArguments):
    """The options of `report`."""

    json: bool
    fetch_sources: bool


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Write report/index.html into the output folder: every job with its pictures, what failed"
        " and why, and what it cost. Needs no network, also works during a run, and opens in any"
        " browser from the disk."
    )
    add_batch_options(parser)
    parser.add_argument(
        "--fetch-sources",
        action="store_true",
        help="also fetch and show pictures that are not on this machine: on other hosts or in"
        " buckets (default: link to them)",
    )


def execute(arguments: Arguments) -> int:
    """Write the page, and print its path."""
    batch = read_batch(arguments)
    standing = status(batch)
    report_rehearsal(arguments, "report", batch)
    folder = batch.output_dir / FOLDER
    fetched: dict[str, Path] = {}
    if arguments.fetch_sources:
        fetched = asyncio.run(fetch_remote_pictures(batch, folder, say, sys.stderr))
    details = BatchDetails(batch)
    jobs = tracked(details, total=standing.jobs, what="report", stream=sys.stderr)
    with Thumbnails(folder, batch.output_dir, fetched, bucket=batch.bucket) as thumbnails:
        index = write_page(
            folder,
            thumbnails.show(jobs),
            _advice(arguments),
            _head(arguments, batch, standing),
            lambda: details.beyond,
        )
    path = str(index.resolve())
    print(json.dumps({"index": path, "jobs": standing.jobs}) if arguments.json else path)
    return ExitCode.DONE


def _advice(arguments: Arguments) -> Advice:
    """Return the next commands for the whole batch; the page adds --only for a job."""
    every: dict[str, object] = {"only": [], "limit": None, "max_cost": None}
    whole = Arguments(**{**vars(arguments), **every})
    return Advice(
        run=command_again(whole, "run"),
        resolve=command_again(whole, "resolve"),
        export=command_again(whole, "export"),
    )


def _head(arguments: Arguments, batch: Batch, standing: Status) -> Head:
    return Head(
        name=batch.manifest.name,
        models=list(batch.models),
        manifest=str(arguments.manifest),
        made_at=utc_now(),
        program=PROGRAM,
        is_sandbox=arguments.sandbox,
        only=", ".join(arguments.only) or None,
        stopped=standing.stopped,
        spent_usd=standing.cost_usd,
        reserved_usd=standing.reserved_usd,
        budget_usd=batch.limits.cost_usd,
    )
