"""argv as typed arguments: which commands there are, and the options that several of them have.

Hides argparse. Each command's module declares its own options (`declare`) and their types
(`Arguments`). What always holds: misuse is a UsageError, reported like every other error; only the
module of the command that was asked for is imported, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from datetime import time
from decimal import Decimal, InvalidOperation
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from batch_runner import PROGRAM
from batch_runner.errors import UsageError, did_you_mean

COMMANDS = {
    "init": "write a first manifest, drafted from a table with --from",
    "run": "run or resume a batch; always safe to run again",
    "plan": "print what run would do and cost; changes nothing",
    "status": "count the jobs by how they stand",
    "report": "make the page of pictures, before and after",
    "export": "write the batch as a table: CSV, JSON lines or Parquet",
    "verify": "compare every saved file with the ledger; --fix fetches again for free",
    "resolve": "list jobs with an unknown outcome, and decide what to do with each",
    "cancel": "cancel what is still queued at the service",
    "reshard": "deal a batch into another number of shards",
    "pull": "bring the ledgers of other machines here, from their copies in a bucket",
    "models": "list the service's models with their prices",
    "schedule": "print, or install, what starts a run every night: systemd or cron",
    "fleet": "print a job file that runs a batch on many machines: Slurm or Kubernetes",
    "sandbox": "serve the stand-in for the service until stopped",
}

SANDBOX_PORT = 8642
GRACE_S = 30.0
_SHARDS_LIMIT = 10_000

_EPILOG = """\
exit codes:
  0 all done · 1 a bug · 3 some jobs failed or are unknown · 64 usage · 65 manifest or table invalid
  66 no such file · 69 service unavailable · 74 disk or ledger · 75 stopped early, run it again
  77 token refused or no balance · 130 interrupted
"""


class BatchArguments(argparse.Namespace):
    """What opens a batch asks for, whether or not the command has such options."""

    command: str
    manifest: Path
    sandbox: bool = False
    faults: str = ""
    api_base: str | None = None
    accept: Sequence[str] = ()
    limit: int | None = None
    only: Sequence[str] = ()
    retry: Sequence[str] = ()
    max_cost: Decimal | None = None
    until: time | None = None
    wait: bool = False
    now: bool = False
    shard: tuple[int | None, int] | None = None


REPLACED = {
    "watch": "batch-runner status MANIFEST --watch",
    "schema": "batch-runner models --schema ID, or --add FILE",
    "--dry-run": "batch-runner plan MANIFEST",
}
"""What earlier releases had, and what to type instead."""


def parse(argv: Sequence[str] | None) -> tuple[ModuleType, BatchArguments]:
    """Return the command's module and its arguments; raises UsageError.

    Keys may stand behind options; argparse alone takes them only before.
    """
    given = sys.argv[1:] if argv is None else argv
    if given and not given[0].startswith("-") and given[0] not in COMMANDS:
        advice = REPLACED.get(given[0]) or did_you_mean(given[0], COMMANDS)
        raise UsageError(f"there is no command '{given[0]}'", hint=advice)
    asked = next((word for word in given if word in COMMANDS), None)
    command = None if asked is None else importlib.import_module(f"batch_runner.commands.{asked}")
    parser = _build_parser(asked, command)
    parsed = BatchArguments() if command is None else command.Arguments()
    parsed, rest = parser.parse_known_args(given, namespace=parsed)
    if rest and (not hasattr(parsed, "jobs") or any(word.startswith("-") for word in rest)):
        hint = next((REPLACED[word] for word in rest if word in REPLACED), None)
        raise UsageError(
            f"unrecognized arguments: {' '.join(rest)}",
            hint=hint or f"see {parser.prog} {parsed.command} --help",
        )
    if rest:
        parsed.jobs = [*parsed.jobs, *rest]
    if command is None:
        raise AssertionError("argparse requires a command")
    return command, parsed


class _Parser(argparse.ArgumentParser):
    """Reports misuse as everything else is reported: message, hint, exit code 64."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"see {self.prog} --help")


def _build_parser(asked: str | None, command: ModuleType | None) -> _Parser:
    """Name every command, and declare the options of the one that was asked for."""
    parser = _Parser(
        prog="batch-runner",
        description="Edit pictures in bulk: never pay twice, never lose what was paid for.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=PROGRAM, help="print the version and exit"
    )
    commands = parser.add_subparsers(
        title="commands", dest="command", required=True, metavar="COMMAND"
    )
    for name, what in COMMANDS.items():
        # Only the command that was asked for parses anything, and each -h takes its time.
        commands.add_parser(name, help=what, add_help=name == asked)
    if asked is not None and command is not None:
        command.declare(commands.choices[asked])
    return parser


def add_batch_options(
    parser: argparse.ArgumentParser, *, only: bool = True, json: bool = True
) -> None:
    """Declare what every command about a manifest has."""
    parser.add_argument("manifest", type=Path, help="the manifest, such as jobs/catalog.yaml")
    if only:
        parser.add_argument(
            "--only",
            action="append",
            default=[],
            metavar="GLOB",
            help="only the jobs whose key matches; may be repeated; @FILE reads keys and globs, one"
            " a line",
        )
    add_service_options(parser, json=json)


def add_service_options(parser: argparse.ArgumentParser, *, json: bool = True) -> None:
    """Declare which service to ask, and `--json`."""
    parser.add_argument(
        "--sandbox",
        action="store_true",
        help="use the built-in stand-in for the service: no token, no cost, a folder of its own",
    )
    parser.add_argument("--api-base", metavar="URL", help="the origin of the service's API")
    if json:
        parser.add_argument("--json", action="store_true", help="print JSON lines for machines")


def add_shard(parser: argparse.ArgumentParser) -> None:
    """Declare `--shard`."""
    parser.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="only the Ith of N parts of the batch, which may run at once, each with its part of"
        " the limits; I is 0 to N-1, and for /N it comes from JOB_COMPLETION_INDEX,"
        " SLURM_ARRAY_TASK_ID or AWS_BATCH_JOB_ARRAY_INDEX",
    )


def count(text: str) -> int:
    """Parse a whole number from 1."""
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def money(text: str) -> Decimal:
    """Parse an amount of USD."""
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or amount < 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not an amount of USD such as 40 or 0.05")
    return amount


def time_of_day(text: str) -> time:
    """Parse a time of day such as 06:00."""
    try:
        at = time.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a time of day such as 06:00") from None
    return at.replace(tzinfo=None)


def _shard(text: str) -> tuple[int | None, int]:
    index, slash, count = text.partition("/")
    if not slash or not all(part.isascii() and part.isdigit() for part in (index or "0", count)):
        raise argparse.ArgumentTypeError(f"'{text}' is not I/N such as 0/4, or /N such as /4")
    found = (int(index) if index else None), int(count)
    if not 1 <= found[1] <= _SHARDS_LIMIT:
        raise argparse.ArgumentTypeError(f"there are 1 to {_SHARDS_LIMIT:,} shards")
    if (found[0] or 0) >= found[1]:
        raise argparse.ArgumentTypeError(
            f"there is no shard {text}: the first is 0/{count}, the last {found[1] - 1}/{count}"
        )
    return found
