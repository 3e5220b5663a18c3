"""`report`: writes a page with all pictures, in a folder that a browser opens from the disk."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from batch_runner.clock import Clock
from batch_runner.commands.arguments import BatchArguments, add_batch_options
from batch_runner.commands.console import say
from batch_runner.commands.context import read_batch
from batch_runner.commands.head import advice_of, head_of
from batch_runner.commands.output import report_rehearsal
from batch_runner.errors import ExitCode
from batch_runner.report.live import Live
from batch_runner.report.page import FOLDER, card_of, write_page
from batch_runner.report.pictures import Copies, Pictures
from batch_runner.report.progress import tracked
from batch_runner.report.remote import FETCHED_FOLDER, Remote
from batch_runner.run.batch import Batch

_AT_ONCE = 16


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
    report_rehearsal(arguments, "report", batch)
    live = Live(lambda: batch, Clock(), traced=True)
    moment = live.look()
    folder = batch.output_dir / FOLDER
    pictures = Pictures(batch.output_dir, bucket=batch.bucket, with_remote=arguments.fetch_sources)
    advice = advice_of(arguments)
    jobs = tracked(live.details(), total=moment.jobs, what="report", stream=sys.stderr)
    index = write_page(
        folder,
        (card_of(details, pictures, advice) for details in jobs),
        lambda: head_of(arguments, batch, moment, live.beyond),
    )
    asyncio.run(_make_copies(batch, folder, pictures))
    path = str(index.resolve())
    print(json.dumps({"index": path, "jobs": moment.jobs}) if arguments.json else path)
    return ExitCode.DONE


async def _make_copies(batch: Batch, folder: Path, pictures: Pictures) -> None:
    """Make all copies that are not there yet: a page that is not served can't ask for them."""
    copies = pictures.copies.items()
    turns = tracked(copies, total=len(copies), what="pictures", stream=sys.stderr, unit="pictures")
    async with Remote(batch, folder / FETCHED_FOLDER, say) as remote:
        with Copies(folder, remote) as made:

            async def work() -> None:
                for address, copy in turns:
                    await made.get(address, copy)

            await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
