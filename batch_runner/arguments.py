"""argv as typed arguments: which commands there are, and what a command line asks of one.

Hides argparse, but for the options of each command (`options`). What always holds: misuse is a
UsageError, reported as everything else is; nothing is imported or declared that the command line
does not ask for, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, NoReturn

from batch_runner.errors import UsageError, did_you_mean
from batch_runner.version import PROGRAM

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import time
    from decimal import Decimal
    from pathlib import Path

COMMANDS = {
    "init": "write a first manifest, drafted from a table with --from",
    "run": "run or resume a batch; always safe to run again",
    "plan": "print what run would do and cost; changes nothing",
    "status": "count the jobs by how they stand",
    "report": "make the page of pictures, before and after",
    "export": "write the batch as a table: CSV, JSON lines or Parquet",
    "watch": "see a run that goes on elsewhere, in the terminal or as a web page",
    "verify": "compare every saved file with the ledger; --fix fetches again for free",
    "resolve": "list jobs with an unknown outcome, and decide what to do with each",
    "cancel": "cancel what is still queued at the service",
    "reshard": "deal a batch into another number of shards",
    "pull": "bring the ledgers of other machines here, from their copies in a bucket",
    "models": "list the service's models with their prices",
    "schema": "print the manifest's JSON Schema, or a model's input schema; keep one of your own",
    "schedule": "print, or install, what starts a run every night: systemd or cron",
    "fleet": "print a job file that runs a batch on many machines: Slurm or Kubernetes",
    "sandbox": "serve the stand-in for the service until stopped",
}

_EPILOG = """\
exit codes:
  0 all done · 1 a bug · 3 some jobs failed or are unknown · 64 usage · 65 manifest or table invalid
  66 no such file · 69 service unavailable · 74 disk or ledger · 75 stopped early, run it again
  77 token refused or no balance · 130 interrupted
"""


class Arguments(argparse.Namespace):
    """What was asked for, typed."""

    command: str
    manifest: Path

    # Whatever opens a batch asks for these, also where the command has no such option.
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
    check_urls: bool = False
    serve: bool = False
    stop: bool = False

    # several
    json: bool
    jobs: list[str]
    log_file: Path | None
    grace_s: float
    shards: int

    # init
    draft: Path | None
    from_table: Path | None
    encoding: str | None
    sheet: str | None
    header: int
    # run
    on_interrupt: str
    dry_run: bool
    quiet: bool
    metrics: Path | None
    # status, report, export, watch
    watch: bool
    fetch_sources: bool
    format: str | None
    columns: list[str] | None
    state: list[str] | None
    wide: bool
    delimiter: str | None
    escape: str | None
    bom: bool
    output: Path | None
    host: str
    serve_port: int | None
    # verify, resolve
    fix: bool
    all_jobs: bool
    attach: str | None
    match: str | None
    not_bought: bool
    resubmit: bool
    abandon: bool
    # models, schema
    search: str
    category: str
    name: str | None
    file: Path | None
    model: str | None
    list_models: bool
    # schedule
    at: time | None
    kind: str | None
    days: str
    timezone: str | None
    install: bool
    force: bool
    # fleet
    engine: str
    image: str | None
    # sandbox
    port: int
    folder: Path
    seed: int
    capacity: int
    queue_s: tuple[float, float]
    run_s: tuple[float, float]
    submits_per_s: int | None
    calls_per_s: int | None
    balance_usd: Decimal
    token: str | None
    slow_answer_s: float
    swatches: bool


def parse(arguments: Sequence[str] | None) -> Arguments:
    """Parse, letting keys stand behind options: argparse alone takes them only before."""
    given = sys.argv[1:] if arguments is None else arguments
    if given and not given[0].startswith("-") and given[0] not in COMMANDS:
        raise UsageError(f"there is no command '{given[0]}'", hint=did_you_mean(given[0], COMMANDS))
    asked = next((word for word in given if not word.startswith("-")), None)
    parser = _build_parser(asked)
    parsed, rest = parser.parse_known_args(given, namespace=Arguments())
    if rest and (not hasattr(parsed, "jobs") or any(word.startswith("-") for word in rest)):
        raise UsageError(
            f"unrecognized arguments: {' '.join(rest)}",
            hint=f"see {parser.prog} {parsed.command} --help",
        )
    if rest:
        parsed.jobs = [*parsed.jobs, *rest]
    return parsed


class _Parser(argparse.ArgumentParser):
    """Reports misuse as everything else is reported: message, hint, exit code 64."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"see {self.prog} --help")


def _build_parser(asked: str | None) -> _Parser:
    """Name every command, and declare the options of the one that is asked for."""
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
        # What is not asked for parses nothing, and each -h takes its time.
        commands.add_parser(name, help=what, add_help=name == asked)
    if asked in COMMANDS:
        from batch_runner import options  # noqa: PLC0415 - `--help` does without

        getattr(options, asked)(commands.choices[asked])
    return parser
