"""`report`: writes a page with all pictures, in a folder that a browser opens from the disk."""

from __future__ import annotations

import argparse
import asyncio

from batch_runner.commands.arguments import BatchArguments, add_batch_options
from batch_runner.commands.console import say
from batch_runner.commands.looking import read_live
from batch_runner.commands.output import about
from batch_runner.errors import ExitCode
from batch_runner.report.page import write_page
from batch_runner.report.pictures import Copies, Pictures
from batch_runner.report.progress import tracked
from batch_runner.report.remote import FOLDER, Remote

_AT_ONCE = 16


Arguments = BatchArguments


def declare(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write report/index.html into the output folder: every job with its pictures, what failed"
        " and why, and what it cost. Needs no network, also works during a run, and opens in any"
        " browser from the disk."
    )
    add_batch_options(parser, json=False)


def execute(arguments: Arguments) -> int:
    """Write the page, and print its path."""
    live = read_live(arguments, is_needed=False)
    batch, moment = live.batch, live.look()
    folder = batch.output_dir / FOLDER
    pictures = Pictures(batch.output_dir, bucket=batch.bucket, with_remote=False)
    index = write_page(
        folder,
        live,
        tracked(live.details(), "report", total=moment.jobs),
        moment=moment,
        pictures=pictures,
        about=about(arguments, batch),
    )
    asyncio.run(_make_copies(Copies(folder, Remote(batch, say)), pictures))
    print(index.resolve())
    return ExitCode.DONE


async def _make_copies(made: Copies, pictures: Pictures) -> None:
    """Make all copies that are not there yet: a page that is not served can't ask for them."""
    copies = pictures.copies.items()
    turns = tracked(copies, "pictures", total=len(copies), unit="pictures")

    async def work() -> None:
        for address, copy in turns:
            await made.get(address, copy)

    await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
