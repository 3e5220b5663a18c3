"""The options of every command, declared here, once: a function a command, named as the command is.

Imported when a command is asked for, and not before: a list of the commands needs none of this.
"""

from __future__ import annotations

import argparse
from datetime import time
from decimal import Decimal, InvalidOperation
from pathlib import Path

SANDBOX_PORT = 8642
_GRACE_S = 30.0
_SHARDS_LIMIT = 10_000


def _add_batch_options(
    parser: argparse.ArgumentParser, *, only: bool = True, json: bool = True
) -> None:
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


def init(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write a manifest to begin with; with --from TABLE its columns are looked at,"
        " and the guesses said. Nothing is overwritten."
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
        "--delimiter",
        type=_delimiter,
        metavar="CHAR",
        help="what separates the cells of a .csv or .txt; tab or \\t for a tab (default: what gives"
        " the rows as many cells as the header)",
    )
    parser.add_argument(
        "--escape",
        type=_letter,
        metavar="CHAR",
        help="what stands before a quote inside a cell, such as '\\' (default: quotes are doubled)",
    )
    parser.add_argument(
        "--sheet", metavar="NAME", help="the sheet of an .xlsx (default: the first visible one)"
    )
    parser.add_argument(
        "--header", type=_count, default=1, metavar="N", help="the row that names the columns"
    )


def run(parser: argparse.ArgumentParser) -> None:
    parser.description = "Run a manifest, or go on with it: what is done is never bought again."
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
    window = parser.add_mutually_exclusive_group()
    window.add_argument(
        "--wait", action="store_true", help="wait for the manifest's window to open"
    )
    window.add_argument(
        "--now", action="store_true", help="submit outside the manifest's window, this once"
    )
    _add_accept(parser)
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
        default=_GRACE_S,
        metavar="S",
        help="after SIGTERM, seconds to collect what is paid for (default: %(default)g)",
    )
    parser.add_argument(
        "--faults",
        default="",
        metavar="SPEC",
        help="with --sandbox: rehearse faults, such as lost-answer=5%%,error-500=2%%",
    )


def _add_accept(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--accept",
        action="append",
        default=[],
        choices=("addresses", "files"),
        help="buy what a run stops before: finished jobs whose pictures have other addresses now"
        " (addresses), jobs whose files are there and in no record (files)",
    )
    parser.add_argument(
        "--yes",
        dest="accept",
        action="append_const",
        const="cost",
        help="don't ask on a terminal before the first purchases without a budget",
    )


def _add_shard(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="only the Ith of N parts of the batch, which may run at once, each with its part of"
        " the limits; I is 0 to N-1, and for /N it comes from JOB_COMPLETION_INDEX,"
        " SLURM_ARRAY_TASK_ID or AWS_BATCH_JOB_ARRAY_INDEX",
    )


def plan(parser: argparse.ArgumentParser) -> None:
    parser.description = "Print what run would do with each job, why, and what it would cost."
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


def status(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Count the manifest's jobs by how they stand in the ledger; needs no network."
    )
    _add_batch_options(parser)
    parser.add_argument(
        "--watch",
        action="store_true",
        help="keep the view up to date while a run elsewhere goes on, until Ctrl-C",
    )


def report(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write report/index.html into the output folder: every job with its pictures,"
        " what failed and why, what it cost. Opens from the disk; needs no network, no run."
    )
    _add_batch_options(parser)
    parser.add_argument(
        "--fetch-sources",
        action="store_true",
        help="fetch pictures that are elsewhere, to show them too: sources on other hosts (default:"
        " link them), sources and results in buckets",
    )


def export(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write one row a job and output (or one a product), with the columns of your own table"
        " beside the program's. The cost of a job stands in the row of its first output."
        " Needs no network."
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
    parser.add_argument(
        "--state",
        type=_states,
        metavar="STATE,…",
        help="only jobs that stand so: done, failed, unknown, … (default: all)",
    )
    parser.add_argument(
        "--wide",
        action="store_true",
        help="one row a product, with columns for each of its outputs: white.file, white.url, …",
    )
    parser.add_argument(
        "--delimiter",
        type=_delimiter,
        metavar="CHAR",
        help="what separates the cells of CSV; tab or \\t for a tab (default: a comma)",
    )
    parser.add_argument("--bom", action="store_true", help="mark CSV as UTF-8, for older Excel")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="replace this file as a whole (default: print)"
    )


def watch(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show how the batch is getting on, from its ledger alone, until Ctrl-C: counts,"
        " rate, time left, cost, the last failures and pictures. The run itself is in another"
        " process, and goes on when this ends."
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
        "--stop",
        action="store_true",
        help="let the run stop in good order, and show nothing: it submits nothing more, collects"
        " what is paid for, and ends",
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


def verify(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Compare every saved file with its SHA-256. One line a difference:"
        " '-' the file is missing, '*' its content differs."
    )
    _add_batch_options(parser, only=False)
    parser.add_argument(
        "--fix", action="store_true", help="put such files back; downloads again, buys nothing"
    )


def resolve(parser: argparse.ArgumentParser) -> None:
    parser.description = "List jobs with an unknown outcome, and decide what to do with each."
    _add_batch_options(parser, only=False)
    parser.add_argument(
        "jobs",
        nargs="*",
        metavar="KEY",
        help="a job's key, the beginning of its fingerprint, or a glob over keys",
    )
    parser.add_argument(
        "--all", dest="all_jobs", action="store_true", help="settle all unknown jobs"
    )
    words = parser.add_mutually_exclusive_group()
    words.add_argument("--attach", metavar="REQUEST_ID", help="the job is this request: collect it")
    words.add_argument(
        "--match",
        metavar="FILE",
        help="look up the request ids in any text ('-': stdin), such as a copy of the service's"
        " Generations page, and attach those that can only be one job's",
    )
    words.add_argument("--resubmit", action="store_true", help="buy it with the next run")
    words.add_argument("--abandon", action="store_true", help="give it up; it counts as spent")
    parser.add_argument(
        "--not-bought",
        action="store_true",
        help="with --resubmit or --abandon: you know that it was never bought; it costs nothing",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="with --match: show the pairs, change nothing"
    )


def cancel(parser: argparse.ArgumentParser) -> None:
    parser.description = "Cancel the requests that have not begun; the others are collected by run."
    _add_batch_options(parser, only=False)
    parser.add_argument("jobs", nargs="*", metavar="KEY", help="only these keys or globs")


def reshard(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Put the ledgers of a batch together, and deal them anew. Nothing may run there"
        " meanwhile; killed at any moment, it can be run again. The former ledgers are kept aside."
    )
    parser.add_argument("manifest", type=Path, help="the manifest, such as jobs/catalog.yaml")
    parser.add_argument(
        "--shards",
        type=_count,
        metavar="N",
        required=True,
        help="into how many; 1: one ledger, to be run without --shard",
    )


def pull(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Bring the ledgers here up to their copies (output.ledger_copy), so that"
        " status, report, export and resolve see what other machines did. Submits nothing."
    )
    parser.add_argument("manifest", type=Path, help="the manifest, such as jobs/catalog.yaml")


def models(parser: argparse.ArgumentParser) -> None:
    parser.description = "List the service's catalog: every model, or those that SEARCH finds."
    parser.add_argument("search", nargs="?", default="", metavar="SEARCH", help="words to look for")
    parser.add_argument("--category", default="", help="such as image-edit or image-to-video")
    _add_service_options(parser)


def schema(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s [-h] [--list] [MODEL | add FILE [--model ID]]"
    parser.description = (
        "Print the JSON Schema of manifests, or the input schema that is known here for"
        " MODEL. 'add FILE' keeps the schema of a model that neither the service nor this program"
        " knows one of: JSON, the schema itself or the service's answer about the model."
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


def schedule(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Print what this machine's own scheduler needs to run the manifest every night;"
        " --install writes it, over nothing that others wrote. The token is in none of it."
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
        choices=("systemd", "cron"),
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


def fleet(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Print a complete job file that runs the manifest in shards. It never holds the token."
    )
    parser.add_argument("engine", choices=("slurm", "kubernetes"), help="what runs the shards")
    parser.add_argument("manifest", type=Path, help="the manifest, such as jobs/catalog.yaml")
    parser.add_argument(
        "--shards", type=_count, required=True, metavar="N", help="in how many parts"
    )
    parser.add_argument(
        "--grace",
        dest="grace_s",
        type=float,
        default=_GRACE_S,
        metavar="S",
        help="seconds a shard that is told to stop may collect (default: %(default)g)",
    )
    parser.add_argument(
        "--image", metavar="IMAGE", help="for kubernetes: a container image with this program in it"
    )


def sandbox(parser: argparse.ArgumentParser) -> None:
    parser.description = "Serve the stand-in for the service on this machine, until Ctrl-C."
    parser.add_argument(
        "--port", type=int, default=SANDBOX_PORT, help="default: %(default)s; 0: any"
    )
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
        type=_balance,
        default=Decimal(10_000),
        metavar="USD",
        help="play money in its account (default: %(default)s); can be 0 or less",
    )
    parser.add_argument("--token", help="take no other token (default: any)")
    parser.add_argument(
        "--slow-answer-s",
        type=float,
        default=2.0,
        metavar="SECONDS",
        help="how late the fault slow-answer is (default: 2)",
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


def _balance(text: str) -> Decimal:
    return -_money(text[1:]) if text.startswith("-") else _money(text)


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


def _states(text: str) -> list[str]:
    from batch_runner.ledger.job import Standing  # noqa: PLC0415 - other commands need none of it

    names = [name.strip().replace("-", "_") for name in text.split(",")]
    if not set(names) <= set(Standing):
        raise argparse.ArgumentTypeError(f"{text!r}: write some of {', '.join(Standing)}")
    return names


def _letter(text: str) -> str:
    if len(text) != 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not one character")
    return text


def _delimiter(text: str) -> str:
    return "\t" if text in ("tab", "\\t") else _letter(text)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _range(text: str) -> tuple[float, float]:
    least, _, most = text.partition(",")
    try:
        return float(least), float(most or least)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not LEAST,MOST such as 0.3,1.2") from None
