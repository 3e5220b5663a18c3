"""`pull`: fetches the ledgers of other machines from their copies in a bucket."""

from __future__ import annotations

import argparse
from pathlib import Path

from batch_runner.commands.arguments import BatchArguments as Arguments
from batch_runner.commands.console import say
from batch_runner.commands.context import load, run_options
from batch_runner.errors import ExitCode
from batch_runner.run.batch import Batch


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Fetch the ledgers of other machines from output.ledger_copy, so that status, report,"
        " export and resolve on this machine show what those machines did. Submits nothing."
    )
    parser.add_argument("manifest", type=Path, help="the manifest, such as jobs/catalog.yaml")


def execute(arguments: Arguments) -> int:
    """Fetch the ledgers of other machines."""
    manifest = load(arguments)
    Batch(manifest, run_options(arguments, manifest)).pull(say)
    say("the ledgers on this machine are up to date")
    say(f"next: batch-runner status {arguments.manifest}, or report, export or resolve")
    return ExitCode.DONE
