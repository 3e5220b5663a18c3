"""`fleet`: prints a job file that runs the batch on many machines."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from batch_runner import PROGRAM
from batch_runner.commands.arguments import GRACE_S, BatchArguments, add_manifest, count
from batch_runner.commands.console import say
from batch_runner.commands.context import check_jobs, find_service, load
from batch_runner.commands.environment import needed_folder
from batch_runner.errors import ExitCode, UsageError
from batch_runner.manifest.form import Manifest
from batch_runner.records import LEDGER_VERSION, LedgerHeader
from batch_runner.schedulers import job_file
from batch_runner.schedulers.timer import absolute, program_words, timer_name
from batch_runner.service.network import is_loopback, parse_origin
from batch_runner.shards.quota import limits_share
from batch_runner.shards.shard import Shard


class Arguments(BatchArguments):
    """The options of `fleet`."""

    grace_s: float
    shards: int
    engine: str
    image: str | None


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Print a complete job file that runs the manifest in shards on many machines. It never"
        " contains the token."
    )
    parser.add_argument("engine", choices=("slurm", "kubernetes"), help="the cluster's scheduler")
    add_manifest(parser)
    parser.add_argument("--shards", type=count, required=True, metavar="N", help="how many shards")
    parser.add_argument(
        "--grace",
        dest="grace_s",
        type=float,
        default=GRACE_S,
        metavar="S",
        help="seconds to collect paid jobs when a shard is stopped (default: %(default)g)",
    )
    parser.add_argument(
        "--image",
        metavar="IMAGE",
        help="for kubernetes: a container image that contains this program",
    )


def execute(arguments: Arguments) -> int:
    """Print a job file."""
    manifest = load(arguments)
    _check(arguments, manifest)
    fleet = job_file.Fleet(
        name=timer_name(manifest.name),
        manifest=manifest,
        manifest_path=absolute(arguments.manifest),
        shards=arguments.shards,
        grace_s=int(arguments.grace_s),
        program=program_words(Path(sys.executable)),
        environment_file=needed_folder("XDG_CONFIG_HOME", ".config") / "batch-runner" / "env",
        image=arguments.image or job_file.UNKNOWN_IMAGE,
    )
    text = job_file.job_file(arguments.engine, fleet)
    print(text, end="")
    name = text.splitlines()[1 if text.startswith("#!") else 0].strip("# ").partition(",")[0]
    say(f"save it as {name} and read it, then:")
    for step in job_file.next_steps(arguments.engine, fleet, name):
        say(f"  {step}")
    return ExitCode.DONE


def _check(arguments: Arguments, manifest: Manifest) -> None:
    """Refuse what every shard would refuse, and options that have no effect."""
    if arguments.image is not None and arguments.engine != "kubernetes":
        raise UsageError("--image is for kubernetes only", hint="leave it out")
    header = LedgerHeader(
        version=LEDGER_VERSION, at=datetime.now(tz=UTC), program=PROGRAM, service=""
    )
    limits_share(manifest.limits, Shard(0, arguments.shards), header)
    api_base, _ = find_service(arguments)
    if manifest.uploads is None and not is_loopback(parse_origin(api_base)):
        check_jobs(arguments, manifest)
