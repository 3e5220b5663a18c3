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
from typing import TYPE_CHECKING, NoReturn

from batch_runner import PROGRAM
from batch_runner.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from batch_runner.shards.shard import Shard

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


_EPILOG = f"""\
commands:
{chr(10).join(f"  {name:<9} {what}" for name, what in COMMANDS.items())}

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
    shard: Shard | None = None


def parse(argv: Sequence[str] | None) -> tuple[ModuleType, BatchArguments]:
    """Return the command's module and its arguments; raises UsageError."""
    given = sys.argv[1:] if argv is None else argv
    if not given or given[0].startswith("-"):
        _parse_no_command(given)
    name = given[0]
    if name not in COMMANDS:
        raise UsageError(f"there is no command '{name}'", hint=did_you_mean(name, COMMANDS))
    command = importlib.import_module(f"batch_runner.commands.{name}")
    parser = _Parser(prog=f"batch-runner {name}")
    command.declare(parser)
    # Intermixed, because keys of jobs may follow options.
    parsed = parser.parse_intermixed_args(given[1:])
    return command, command.Arguments(command=name, **vars(parsed))


class _Parser(argparse.ArgumentParser):
    """Reports a wrong command line like every other error: message, hint, exit code 64."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"see {self.prog} --help")


def _parse_no_command(given: Sequence[str]) -> NoReturn:
    """Print the help or the version; anything else is an error."""
    parser = _Parser(
        prog="batch-runner",
        usage="%(prog)s [--help] [--version] COMMAND ...",
        description="Edit pictures in bulk: never pay twice, never lose what was paid for.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=PROGRAM, help="print the version and exit"
    )
    parser.parse_args(given)
    parser.error("the following arguments are required: COMMAND")


def add_batch_options(
    parser: argparse.ArgumentParser, *, only: bool = True, json: bool = True
) -> None:
    """Declare the options of commands that take a manifest."""
    parser.add_argument("manifest", type=Path, help="the manifest, such as jobs/catalog.yaml")
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
    service = parser.add_mutually_exclusive_group()
    service.add_argument(
        "--sandbox",
        action="store_true",
        help="rehearse with a built-in stand-in for the service: no token, no cost, a separate"
        " output folder",
    )
    service.add_argument("--api-base", metavar="URL", help="use the service at this address")
    if json:
        parser.add_argument("--json", action="store_true", help="print JSON lines, for scripts")


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
