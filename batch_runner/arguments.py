"""argv as typed arguments: every command and option is declared here, once.

Hides argparse. What always holds: misuse is a UsageError, reported as everything else is; nothing
heavy is imported, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence
from datetime import time
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NoReturn

from batch_runner.errors import UsageError, did_you_mean

DEFAULT_GRACE_S = 30.0
_SHARDS_LIMIT = 10_000

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
    sandbox: bool = False
    faults: str = ""
    api_base: str | None = None
    limit: int | None = None
    only: str | None = None
    retry: list[str]
    max_cost: Decimal | None = None
    until: time | None = None
    wait: bool = False
    on_interrupt: str = "drain"
    dry_run: bool = False
    check_urls: bool = False
    draft: Path | None = None
    from_table: Path | None = None
    encoding: str | None = None
    sheet: str | None = None
    header: int = 1
    json: bool = False
    quiet: bool = False
    metrics: Path | None = None
    log_file: Path | None = None
    grace_s: float = DEFAULT_GRACE_S
    name: str | None = None
    list_models: bool = False
    search: str = ""
    category: str = ""
    file: Path | None = None
    model: str | None = None
    jobs: list[str]
    all_jobs: bool = False
    attach: str | None = None
    resubmit: bool = False
    abandon: bool = False
    fix: bool = False
    port: int = 8642
    folder: Path = Path()
    seed: int = 0
    capacity: int = 8
    queue_s: tuple[float, float] = (0.0, 0.2)
    run_s: tuple[float, float] = (0.3, 1.2)
    submits_per_s: int | None = None
    calls_per_s: int | None = None
    balance_usd: Decimal = Decimal(10_000)
    swatches: bool = False
    at: time | None = None
    kind: str | None = None
    days: str = "daily"
    timezone: str | None = None
    install: bool = False
    force: bool = False
    format: str | None = None
    columns: list[str] | None = None
    bom: bool = False
    output: Path | None = None
    fetch_sources: bool = False
    shard: tuple[int | None, int] | None = None
    shards: int = 1
    watch: bool = False
    serve: bool = False
    host: str = "127.0.0.1"
    serve_port: int | None = None
    engine: str
    image: str | None = None
    address: str | None = None
    shared_through: Any = None


class _Parser(argparse.ArgumentParser):
    """Reports misuse as everything else is reported: message, hint, exit code 64."""

    commands: Collection[str] = ()

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"see {self.prog} --help")


def parse(arguments: Sequence[str] | None) -> Arguments:
    """Parse, letting keys stand behind options: argparse alone takes them only before."""
    parser = build_parser()
    given = sys.argv[1:] if arguments is None else arguments
    if given and not given[0].startswith("-") and given[0] not in parser.commands:
        raise UsageError(
            f"there is no command '{given[0]}'", hint=did_you_mean(given[0], parser.commands)
        )
    parsed, rest = parser.parse_known_args(arguments, namespace=Arguments())
    if rest and (not hasattr(parsed, "jobs") or any(word.startswith("-") for word in rest)):
        command = next(word for word in arguments or sys.argv[1:] if not word.startswith("-"))
        raise UsageError(
            f"unrecognized arguments: {' '.join(rest)}",
            hint=f"see {parser.prog} {command} --help",
        )
    if rest:
        parsed.jobs = [*parsed.jobs, *rest]
    return parsed


def build_parser() -> _Parser:
    """Declare every command and option."""
    parser = _Parser(
        prog="batch-runner",
        description="Edit pictures in bulk: never pay twice, never lose what was paid for.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    parser.commands = commands.choices
    _add_init(commands)
    _add_run(commands)
    _add_plan(commands)
    _add_status(commands)
    _add_report(commands)
    _add_export(commands)
    _add_watch(commands)
    _add_verify(commands)
    _add_resolve(commands)
    _add_cancel(commands)
    _add_reshard(commands)
    _add_pull(commands)
    _add_models(commands)
    _add_schema(commands)
    _add_schedule(commands)
    _add_fleet(commands)
    _add_sandbox(commands)
    return parser


class _Version(argparse.Action):
    """Looks the version up only when it is asked for: that takes longer than all of --help."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from batch_runner.version import PROGRAM  # noqa: PLC0415 - see above

        sys.stdout.write(f"{PROGRAM}\n")
        parser.exit()


def _add_batch_options(
    parser: argparse.ArgumentParser, *, only: bool = True, json: bool = True
) -> None:
    parser.add_argument("manifest", type=Path, help="the manifest, such as jobs/catalog.yaml")
    if only:
        parser.add_argument("--only", metavar="GLOB", help="only the jobs whose key matches")
    _add_service_options(parser, json=json)


def _add_service_options(parser: argparse.ArgumentParser, *, json: bool = True) -> None:
    parser.add_argument(
        "--sandbox",
        action="store_true",
        help="use the built-in stand-in for the service: no token, no cost, a folder of its own",
    )
    parser.add_argument("--api-base", metavar="URL", help="the origin of the service's API")
    if json:
        parser.add_argument("--json", action="store_true", help="print JSON lines for machines")


def _add_init(commands: Any) -> None:
    parser = commands.add_parser(
        "init",
        help="write a first manifest, drafted from a table with --from",
        description="Write a manifest to begin with; with --from TABLE its columns are looked at,"
        " and the guesses said. Nothing is overwritten.",
    )
    parser.add_argument(
        "draft",
        nargs="?",
        type=Path,
        metavar="MANIFEST",
        help="the file to write (default: the table's name with .yaml, or batch.yaml)",
    )
    parser.add_argument(
        "--from",
        dest="from_table",
        type=Path,
        metavar="TABLE",
        help="a table of products: .csv, .tsv, .txt, .jsonl (also .gz), .xlsx or .parquet;"
        " or a folder of pictures",
    )
    parser.add_argument(
        "--encoding", metavar="NAME", help="the table's encoding, where it is not UTF-8: cp1252, …"
    )
    parser.add_argument(
        "--sheet", metavar="NAME", help="the sheet of an .xlsx (default: the first)"
    )
    parser.add_argument(
        "--header", type=_count, default=1, metavar="N", help="the row that names the columns"
    )
    parser.set_defaults(command="init")


def _add_run(commands: Any) -> None:
    parser = commands.add_parser(
        "run",
        help="run or resume a batch; always safe to run again",
        description="Run a manifest, or go on with it: what is done is never bought again.",
    )
    _add_batch_options(parser)
    parser.add_argument("--limit", type=_count, metavar="N", help="submit at most N jobs this time")
    parser.add_argument(
        "--retry",
        action="append",
        default=[],
        choices=("failed", "unknown", "all"),
        help="submit these again, as a new generation that is paid for",
    )
    parser.add_argument(
        "--max-cost", type=_money, metavar="USD", help="the budget, instead of limits.cost_usd"
    )
    parser.add_argument(
        "--until", type=_time_of_day, metavar="HH:MM", help="submit nothing after this time of day"
    )
    parser.add_argument(
        "--wait", action="store_true", help="wait for the manifest's window to open"
    )
    parser.add_argument(
        "--on-interrupt",
        choices=("drain", "detach", "cancel"),
        default="drain",
        help="on the first Ctrl-C: collect what is paid for (drain), leave at once (detach), or"
        " cancel what is queued and collect the rest (default: %(default)s)",
    )
    _add_shard(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the plan and do nothing")
    parser.add_argument("--quiet", action="store_true", help="no progress, only the summary")
    parser.add_argument(
        "--metrics",
        type=Path,
        metavar="FILE",
        help="at the end, put the totals here for Prometheus' textfile collector",
    )
    parser.add_argument(
        "--log-file", type=Path, metavar="FILE", help="append what the run says, with UTC times"
    )
    parser.add_argument(
        "--grace",
        dest="grace_s",
        type=float,
        default=DEFAULT_GRACE_S,
        metavar="S",
        help="after SIGTERM, seconds to collect what is paid for (default: %(default)g)",
    )
    parser.add_argument(
        "--faults",
        default="",
        metavar="SPEC",
        help="with --sandbox: rehearse faults, such as lost-answer=5%%,error-500=2%%",
    )
    parser.set_defaults(command="run")


def _add_shard(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="only the Ith of N parts of the batch, which may run at once, each with its part of"
        " the limits; I is 0 to N-1, and for /N it comes from JOB_COMPLETION_INDEX,"
        " SLURM_ARRAY_TASK_ID or AWS_BATCH_JOB_ARRAY_INDEX",
    )


def _add_plan(commands: Any) -> None:
    parser = commands.add_parser(
        "plan",
        help="print what run would do and cost; changes nothing",
        description="Print what run would do with each job, why, and what it would cost.",
    )
    _add_batch_options(parser)
    parser.add_argument(
        "--retry",
        action="append",
        default=[],
        choices=("failed", "unknown", "all"),
        help="plan as run --retry would",
    )
    parser.add_argument(
        "--max-cost", type=_money, metavar="USD", help="the budget, instead of limits.cost_usd"
    )
    parser.add_argument(
        "--check-urls",
        action="store_true",
        help="ask the address of every picture that would be sent, and tell by row what is wrong:"
        " unreachable, login, no picture, over 50 MB (exit code 65); what is fine is remembered"
        " for a day in the cache folder",
    )
    parser.set_defaults(command="plan")


def _add_status(commands: Any) -> None:
    parser = commands.add_parser(
        "status",
        help="count the jobs by how they stand",
        description="Count the manifest's jobs by how they stand in the ledger; needs no network.",
    )
    _add_batch_options(parser)
    parser.add_argument(
        "--watch",
        action="store_true",
        help="keep the view up to date while a run elsewhere goes on, until Ctrl-C",
    )
    parser.set_defaults(command="status")


def _add_report(commands: Any) -> None:
    parser = commands.add_parser(
        "report",
        help="make the page of pictures, before and after",
        description="Write report/index.html into the output folder: every job with its pictures,"
        " what failed and why, what it cost. Opens from the disk; needs no network, no run.",
    )
    _add_batch_options(parser)
    parser.add_argument(
        "--fetch-sources",
        action="store_true",
        help="fetch pictures that are elsewhere, to show them too: sources on other hosts (default:"
        " link them), sources and results in buckets",
    )
    parser.set_defaults(command="report")


def _add_export(commands: Any) -> None:
    parser = commands.add_parser(
        "export",
        help="write the batch as a table: CSV, JSON lines or Parquet",
        description="Write one row a job and output, with the columns of your own table beside the"
        " program's. The cost of a job stands in the row of its first output. Needs no network.",
    )
    _add_batch_options(parser, json=False)
    parser.add_argument(
        "--format",
        choices=("csv", "jsonl", "parquet"),
        help="default: by the name of --output, else csv; parquet needs an extra",
    )
    parser.add_argument(
        "--columns",
        type=_names,
        metavar="NAME,…",
        help="only these columns, in this order (default: all there are)",
    )
    parser.add_argument("--bom", action="store_true", help="mark CSV as UTF-8, for older Excel")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="replace this file as a whole (default: print)"
    )
    parser.set_defaults(command="export")


def _add_watch(commands: Any) -> None:
    parser = commands.add_parser(
        "watch",
        help="see a run that goes on elsewhere, in the terminal or as a web page",
        description="Show how the batch is getting on, from its ledger alone, until Ctrl-C: counts,"
        " rate, time left, cost, the last failures and pictures. The run itself is in another"
        " process, and goes on when this ends.",
    )
    _add_batch_options(parser)
    parser.add_argument(
        "--serve",
        action="store_true",
        help="as a web page, with the pictures and a button that lets the run stop in good order;"
        " its address holds a secret, and whoever has that can see and stop the batch; only this"
        " machine reaches it, others by a tunnel: ssh -L 8643:127.0.0.1:8643 HOST",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="with --serve: the address to listen on (default: this machine only)",
    )
    parser.add_argument(
        "--port",
        dest="serve_port",
        type=int,
        metavar="PORT",
        help="with --serve (default: 8643, or any where that is taken)",
    )
    parser.set_defaults(command="watch")


def _add_verify(commands: Any) -> None:
    parser = commands.add_parser(
        "verify",
        help="compare every saved file with the ledger; --fix fetches again for free",
        description="Compare every saved file with its SHA-256. One line a difference:"
        " '-' the file is missing, '*' its content differs.",
    )
    _add_batch_options(parser, only=False)
    parser.add_argument(
        "--fix", action="store_true", help="put such files back; downloads again, buys nothing"
    )
    parser.set_defaults(command="verify")


def _add_resolve(commands: Any) -> None:
    parser = commands.add_parser(
        "resolve",
        help="list and settle the jobs of which nobody knows whether they were bought",
        description="List the unknown jobs, or settle the ones named: each needs your word.",
    )
    _add_batch_options(parser, only=False)
    parser.add_argument("jobs", nargs="*", metavar="KEY", help="a job's key, or a glob over keys")
    parser.add_argument(
        "--all", dest="all_jobs", action="store_true", help="settle all unknown jobs"
    )
    words = parser.add_mutually_exclusive_group()
    words.add_argument("--attach", metavar="REQUEST_ID", help="the job is this request: collect it")
    words.add_argument("--resubmit", action="store_true", help="buy it anew with the next run")
    words.add_argument("--abandon", action="store_true", help="never mind it")
    parser.set_defaults(command="resolve")


def _add_cancel(commands: Any) -> None:
    parser = commands.add_parser(
        "cancel",
        help="cancel what is still queued at the service",
        description="Cancel the requests that have not begun; the others are collected by run.",
    )
    _add_batch_options(parser, only=False)
    parser.add_argument("jobs", nargs="*", metavar="KEY", help="only these keys or globs")
    parser.set_defaults(command="cancel")


def _add_pull(commands: Any) -> None:
    parser = commands.add_parser(
        "pull",
        help="bring the ledgers of other machines here, from their copies in a bucket",
        description="Bring the ledgers here up to their copies (output.ledger_copy), so that"
        " status, report, export and resolve see what other machines did. Submits nothing.",
    )
    parser.add_argument("manifest", type=Path, help="the manifest, such as jobs/catalog.yaml")
    parser.set_defaults(command="pull")


def _add_reshard(commands: Any) -> None:
    parser = commands.add_parser(
        "reshard",
        help="deal a batch into another number of shards",
        description="Put the ledgers of a batch together, and deal them anew. Nothing may run there"
        " meanwhile; killed at any moment, it can be run again. The former ledgers are kept aside.",
    )
    parser.add_argument("manifest", type=Path, help="the manifest, such as jobs/catalog.yaml")
    parser.add_argument(
        "--shards",
        type=_count,
        metavar="N",
        required=True,
        help="into how many; 1: one ledger, to be run without --shard",
    )
    parser.set_defaults(command="reshard")


def _add_models(commands: Any) -> None:
    parser = commands.add_parser(
        "models",
        help="list the service's models with their prices",
        description="List the service's catalog: every model, or those that SEARCH finds.",
    )
    parser.add_argument("search", nargs="?", default="", metavar="SEARCH", help="words to look for")
    parser.add_argument("--category", default="", help="such as image-edit or image-to-video")
    _add_service_options(parser)
    parser.set_defaults(command="models")


def _add_schema(commands: Any) -> None:
    parser = commands.add_parser(
        "schema",
        help="print the manifest's JSON Schema, or a model's input schema; keep one of your own",
        usage="%(prog)s [-h] [--list] [MODEL | add FILE [--model ID]]",
        description="Print the JSON Schema of manifests, or the input schema that is known here for"
        " MODEL. 'add FILE' keeps the schema of a model that neither the service nor this program"
        " knows one of: JSON, the schema itself or the service's answer about the model.",
    )
    parser.add_argument("name", nargs="?", metavar="MODEL", help="a model_id, or the word add")
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="after add: the schema")
    parser.add_argument(
        "--model", metavar="ID", help="with add: whose schema it is, where the file does not say"
    )
    parser.add_argument(
        "--list",
        dest="list_models",
        action="store_true",
        help="list the models whose schema ships, and those you added",
    )
    parser.set_defaults(command="schema")


def _add_schedule(commands: Any) -> None:
    parser = commands.add_parser(
        "schedule",
        help="print, or install, what starts a run every night: systemd, cron, GitHub",
        description="Print what this machine's own scheduler needs to run the manifest every night;"
        " --install writes it, over nothing that others wrote. The token is in none of it.",
    )
    parser.add_argument("manifest", type=Path, help="the manifest, such as jobs/overnight.yaml")
    parser.add_argument(
        "--at",
        type=_time_of_day,
        metavar="HH:MM",
        help="when to start a run (default: when the manifest's window opens)",
    )
    parser.add_argument(
        "--kind",
        choices=("systemd", "cron", "github"),
        help="for which scheduler (default: systemd where there is systemctl, else cron)",
    )
    parser.add_argument(
        "--days", default="daily", help="daily, mon-fri, sat,sun, … (default: %(default)s)"
    )
    parser.add_argument(
        "--timezone",
        metavar="ZONE",
        help="the time zone of --at (default: the window's, else this machine's)",
    )
    parser.add_argument(
        "--log-file",
        type=Path,
        metavar="FILE",
        help="where the runs' messages go (default: systemd's journal; with cron a file)",
    )
    parser.add_argument("--install", action="store_true", help="write it, instead of printing it")
    parser.add_argument(
        "--force", action="store_true", help="with --install: replace what this wrote before"
    )
    parser.set_defaults(command="schedule")


def _add_fleet(commands: Any) -> None:
    parser = commands.add_parser(
        "fleet",
        help="run a batch on many machines: a job file for Slurm, Kubernetes, AWS Batch; or Ray",
        description="Print a complete job file that runs the manifest in shards, or, with ray, run"
        " them. The token is in none of it.",
    )
    parser.add_argument(
        "engine", choices=("slurm", "kubernetes", "aws-batch", "ray"), help="what runs the shards"
    )
    parser.add_argument("manifest", type=Path, help="the manifest, such as jobs/catalog.yaml")
    parser.add_argument(
        "--shards", type=_count, required=True, metavar="N", help="in how many parts"
    )
    parser.add_argument(
        "--grace",
        dest="grace_s",
        type=float,
        default=DEFAULT_GRACE_S,
        metavar="S",
        help="seconds a shard that is told to stop may collect (default: %(default)g)",
    )
    parser.add_argument(
        "--image", metavar="IMAGE", help="for kubernetes and aws-batch: with this program in it"
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="for ray: a cluster that is there, or auto (default: one on this machine)",
    )
    parser.set_defaults(command="fleet")


def _add_sandbox(commands: Any) -> None:
    parser = commands.add_parser(
        "sandbox",
        help="serve the stand-in for the service until stopped",
        description="Serve the stand-in for the service on this machine, until Ctrl-C.",
    )
    parser.add_argument("--port", type=int, default=8642, help="default: %(default)s; 0: any")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("out/sandbox"),
        help="where it keeps its requests (default: %(default)s)",
    )
    parser.add_argument("--capacity", type=_count, default=8, help="requests worked on at once")
    parser.add_argument(
        "--run-s",
        type=_range,
        default=(0.3, 1.2),
        metavar="LEAST,MOST",
        help="seconds of work a request takes (default: 0.3,1.2)",
    )
    parser.add_argument(
        "--queue-s",
        type=_range,
        default=(0.0, 0.2),
        metavar="LEAST,MOST",
        help="seconds a request waits although there is room (default: 0,0.2)",
    )
    parser.add_argument(
        "--submits-per-s", type=_count, metavar="N", help="answer more submits with 429"
    )
    parser.add_argument(
        "--calls-per-s", type=_count, metavar="N", help="answer more other calls with 429"
    )
    parser.add_argument(
        "--balance",
        dest="balance_usd",
        type=_money,
        default=Decimal(10_000),
        metavar="USD",
        help="play money in its account (default: %(default)s)",
    )
    parser.add_argument(
        "--swatches",
        action="store_true",
        help="small plain pictures, to rehearse thousands of jobs",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of durations and faults")
    parser.add_argument(
        "--faults", default="", metavar="SPEC", help="NAME=SHARE,…; '--faults list' explains them"
    )
    parser.add_argument(
        "--json", action="store_true", help="print at the end what was asked, as a JSON line"
    )
    parser.set_defaults(command="sandbox")


def _count(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


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


def _money(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or amount < 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not an amount of USD such as 40 or 0.05")
    return amount


def _time_of_day(text: str) -> time:
    try:
        at = time.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a time of day such as 06:00") from None
    return at.replace(tzinfo=None)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _range(text: str) -> tuple[float, float]:
    least, _, most = text.partition(",")
    try:
        return float(least), float(most or least)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not LEAST,MOST such as 0.3,1.2") from None
