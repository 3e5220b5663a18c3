"""`reshard`: splits a batch into another number of shards."""

from __future__ import annotations

import argparse
import shlex

from batch_runner.commands.arguments import BatchArguments, add_manifest, count
from batch_runner.commands.context import load
from batch_runner.errors import ExitCode
from batch_runner.records import utc_now
from batch_runner.shards.reshard import reshard


class Arguments(BatchArguments):
    """The options of `reshard`."""

    shards: int


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Split the ledgers of a batch into another number of shards. No run may work on the batch"
        " meanwhile. Safe to repeat if it was interrupted; the old ledgers are kept in a folder"
        " beside the new ones."
    )
    add_manifest(parser)
    parser.add_argument(
        "--shards",
        type=count,
        metavar="N",
        required=True,
        help="how many shards; 1 makes one ledger, for runs without --shard",
    )


def execute(arguments: Arguments) -> int:
    """Split the ledgers."""
    manifest = load(arguments)
    resharded = reshard(manifest.output.ledger_dir, arguments.shards, utc_now())
    into = _ledgers(resharded.after)
    if resharded.before == resharded.after:
        print(f"{manifest.name} already has {into}: {resharded.jobs:,} jobs")
    else:
        print(f"{resharded.jobs:,} jobs split from {_ledgers(resharded.before)} into {into}")
    shard = f"--shard I/{resharded.after} " if resharded.after > 1 else ""
    print(f"next: batch-runner run {shard}{shlex.quote(str(arguments.manifest))}")
    return ExitCode.DONE


def _ledgers(count: int) -> str:
    return "one ledger" if count == 1 else f"{count} shards"
