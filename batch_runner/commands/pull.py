"""`pull`: fetches the ledgers of other machines from their copies in a bucket."""

from __future__ import annotations

import argparse

from batch_runner.commands.arguments import BatchArguments as Arguments
from batch_runner.commands.arguments import add_manifest
from batch_runner.commands.console import say
from batch_runner.commands.context import read_batch
from batch_runner.errors import ExitCode


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Fetch the ledgers of other machines from output.ledger_copy, so that status, report,"
        " export and resolve on this machine show what those machines did. Submits nothing."
    )
    add_manifest(parser)


def execute(arguments: Arguments) -> int:
    """Fetch the ledgers of other machines."""
    read_batch(arguments).pull(say)
    say("the ledgers on this machine are up to date")
    say(f"next: batch-runner status {arguments.manifest}, or report, export or resolve")
    return ExitCode.DONE
