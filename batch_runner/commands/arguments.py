"""argv as typed arguments: the list of commands, and the options that several commands share.

Hides argparse. Each command's module declares its own options (`declare`) and their types
(`Arguments`). What always holds: a wrong command line is a UsageError, reported like every other
error; only the module of the requested command is imported, so `--help` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from batch_runner import PROGRAM
from batch_runner.errors import UsageError, did_you_mean

COMMANDS = {
    "init": "draft a first manifest from a table",
    "run": "run or resume a batch; safe to repeat",
    "plan": "show what run would do and cost; changes nothing",
    "status": "show how many jobs are done, failed or still open",
    "view": "look at the pictures in a browser, as they are saved",
    "report": "write the same page as a folder that needs no server",
    "export": "write the results as a table: CSV or JSON lines",
    "check": "check that saved files are whole, and measure the pictures; --fix restores files",
    "review": "count verdicts; --import takes over someone else's",
    "redo": "ask for pictures to be made again",
    "deliver": "make accepted pictures as each shop takes them",
    "resolve": "list jobs with an unknown outcome and settle them",
    "models": "list the service's models and their prices",
    "sandbox": "serve a stand-in for the service, for rehearsals",
}

SANDBOX_PORT = 8642
GRACE_S = 30.0
_SHARDS_LIMIT = 10_000

_EPILOG = """\
exit codes:
    0  all done                          69  service unavailable
    1  a bug in this program             74  disk or ledger problem
    3  some jobs failed or are unknown   75  stopped early: run it again
   64  wrong command line                77  token refused, or no balance
   65  manifest or table not valid      130  interrupted
   66  no such file
"""


class BatchArguments(argparse.Namespace):
    """What it takes to open a batch; the defaults are for commands without such an option."""

    command: str
    manifest: Path
    sandbox: bool = False
    faults: str = ""
    api_base: str | None = None
    json: bool = False
    accept: Sequence[str] = ()
    limit: int | None = None
    only: Sequence[str] = ()
    retry: Sequence[str] = ()
    max_cost: Decimal | None = None
    wait: bool = False
    now: bool = False
    shard: tuple[int, int] | None = None


REPLACED = {
    "verify": "batch-runner check MANIFEST (--fix restores files)",
    "watch": "batch-runner status MANIFEST --watch",
    "fleet": "copy jobs/slurm.sh or jobs/kubernetes.yml, and change the lines marked CHANGE",
    "schedule": "copy jobs/nightly.service and jobs/nightly.timer, and read their comments",
    "reshard": "run each shard with --shard I/N, on any machine that has the ledgers",
    "cancel": "batch-runner resolve MANIFEST --cancel",
    "--pull": "remove output.ledger_copy from the manifest: its error says where the ledger is",
    "--serve": "batch-runner view MANIFEST",
    "--log-file": "redirect stderr: batch-runner run MANIFEST 2>>FILE",
    "--metrics": "write them with a command of your own: notify.on_finish in the manifest",
    "schema": "batch-runner models --schema ID",
    "--add": "write schema: FILE into the manifest",
    "--dry-run": "batch-runner plan MANIFEST",
    "--wide": "batch-runner deliver MANIFEST writes a table with a row for each product",
    "--fetch-sources": "batch-runner view MANIFEST shows pictures that are on other machines",
    "--columns": "leave out columns with a spreadsheet, or with: csvcut -c job,file",
}
"""Commands and options of earlier releases, and what to type instead."""


def parse(argv: Sequence[str] | None) -> tuple[ModuleType, BatchArguments]:
    """Return the command's module and its arguments; raises UsageError.

    Job keys may follow options, which argparse alone does not allow.
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
    words = next((name for name in ("jobs", "channels", "more") if hasattr(parsed, name)), None)
    if rest and (words is None or any(word.startswith("-") for word in rest)):
        hint = next((REPLACED[word] for word in rest if word in REPLACED), None)
        raise UsageError(
            f"unrecognized arguments: {' '.join(rest)}",
            hint=hint or f"see {parser.prog} {parsed.command} --help",
        )
    if rest and words is not None:
        setattr(parsed, words, [*getattr(parsed, words), *rest])
    if command is None:
        raise AssertionError("argparse requires a command")
    return command, parsed


class _Parser(argparse.ArgumentParser):
    """Reports a wrong command line like every other error: message, hint, exit code 64."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"see {self.prog} --help")


def _build_parser(asked: str | None, command: ModuleType | None) -> _Parser:
    """Return a parser that names every command, with the options of the requested one."""
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
        # Only the requested command parses anything, and adding -h to all of them takes time.
        commands.add_parser(name, help=what, add_help=name == asked)
    if asked is not None and command is not None:
        command.declare(commands.choices[asked])
    return parser


def add_manifest(parser: argparse.ArgumentParser) -> None:
    """Declare the manifest."""
    parser.add_argument("manifest", type=Path, help="the manifest, such as jobs/catalog.yaml")


def add_batch_options(
    parser: argparse.ArgumentParser, *, only: bool = True, json: bool = True
) -> None:
    """Declare the options of commands that take a manifest."""
    add_manifest(parser)
    if only:
        parser.add_argument(
            "--only",
            action="append",
            default=[],
            metavar="GLOB",
            help="only jobs whose key matches GLOB; may be repeated; @FILE reads globs from a file,"
            " one per line",
        )
    add_service_options(parser, json=json)


def add_service_options(parser: argparse.ArgumentParser, *, json: bool = True) -> None:
    """Declare the options that choose the service, and `--json`."""
    parser.add_argument(
        "--sandbox",
        action="store_true",
        help="rehearse with a built-in stand-in for the service: no token, no cost, a separate"
        " output folder",
    )
    parser.add_argument("--api-base", metavar="URL", help="use the service at this address")
    if json:
        parser.add_argument("--json", action="store_true", help="print JSON lines, for scripts")


def add_shard(parser: argparse.ArgumentParser) -> None:
    """Declare `--shard`."""
    parser.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="run shard I of N (I from 0 to N-1): shards may run at the same time, and share the"
        " limits and the budget",
    )


def add_purchases(parser: argparse.ArgumentParser) -> None:
    """Declare what a run buys again, and for how much."""
    parser.add_argument(
        "--retry",
        action="append",
        default=[],
        choices=("failed", "unknown", "all"),
        help="buy these jobs again, at their full price",
    )
    parser.add_argument(
        "--max-cost", type=_money, metavar="USD", help="the budget, in place of limits.cost_usd"
    )


def count(text: str) -> int:
    """Parse a whole number of 1 or more."""
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _money(text: str) -> Decimal:
    """Parse an amount of USD."""
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or amount < 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not an amount of USD such as 40 or 0.05")
    return amount


def _shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if all(part.isascii() and part.isdigit() for part in (index, count)):
        found = int(index), int(count)
        if found[0] < found[1] <= _SHARDS_LIMIT:
            return found
    what = f"'{text}' is not I/N such as 0/4, with I from 0 to N-1 and N up to {_SHARDS_LIMIT:,}"
    raise argparse.ArgumentTypeError(what)
