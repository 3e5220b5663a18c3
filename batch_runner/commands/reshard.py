"""`reshard`: splits a batch into another number of shards."""

from __future__ import annotations

import argparse
import shlex

from batch_runner.commands.arguments import SANDBOX_PORT, BatchArguments, add_manifest, count
from batch_runner.commands.console import say
from batch_runner.commands.context import load
from batch_runner.commands.environment import BASE_VARIABLES, from_environment
from batch_runner.errors import ExitCode, UsageError
from batch_runner.ledger.reading import ledger_path, read_header
from batch_runner.manifest.form import Manifest
from batch_runner.records import utc_now
from batch_runner.service.network import API_BASE
from batch_runner.shards.ledgers import LOCAL_SERVICE
from batch_runner.shards.reshard import reshard
from batch_runner.shards.shard import ledger_dirs


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
    if manifest.output.ledger_copy is not None:
        raise UsageError(
            "cannot reshard a batch with output.ledger_copy: the copy would be out of date",
            hint="run batch-runner status --pull, remove ledger_copy from the manifest, reshard,"
            " then set ledger_copy to a new, empty place",
        )
    resharded = reshard(manifest.output.ledger_dir, arguments.shards, utc_now())
    into = _ledgers(resharded.after)
    if resharded.before == resharded.after:
        print(f"{manifest.name} already has {into}: {resharded.jobs:,} jobs")
    else:
        print(f"{resharded.jobs:,} jobs split from {_ledgers(resharded.before)} into {into}")
    words = ["batch-runner", "run", *_service_words(manifest)]
    words += ["--shard", f"I/{resharded.after}"] if resharded.after > 1 else []
    print(f"next: {shlex.join([*words, str(arguments.manifest)])}")
    return ExitCode.DONE


def _service_words(manifest: Manifest) -> list[str]:
    """Return the option for the service that the batch ran against, if it is needed."""
    if from_environment(BASE_VARIABLES):
        return []
    headers = map(read_header, map(ledger_path, ledger_dirs(manifest.output.ledger_dir)))
    service = next((header.service for header in headers if header is not None), API_BASE)
    if service == LOCAL_SERVICE:
        service = f"http://127.0.0.1:{SANDBOX_PORT}"
        say("the batch ran against a service on this machine; change the port below if necessary")
    return [] if service == API_BASE else ["--api-base", service]


def _ledgers(count: int) -> str:
    return "one ledger" if count == 1 else f"{count} shards"
