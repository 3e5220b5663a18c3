"""`status`: shows how a batch stands, from its ledger alone; `--watch` follows a run elsewhere."""

from __future__ import annotations

import argparse
import asyncio

import msgspec

from batch_runner.commands.arguments import BatchArguments, add_batch_options
from batch_runner.commands.console import say, show
from batch_runner.commands.context import read_batch
from batch_runner.commands.output import print_lines, report_rehearsal
from batch_runner.commands.watch import watch
from batch_runner.errors import ExitCode, UsageError
from batch_runner.report.live import stop_runs
from batch_runner.report.status import RARE, status
from batch_runner.report.text import status_text
from batch_runner.run.batch import Batch


class Arguments(BatchArguments):
    """The options of `status`."""

    json: bool
    watch: bool
    serve: bool
    stop: bool
    host: str
    serve_port: int | None


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Show how many jobs are done, failed or still open, and what they cost. Reads the ledger;"
        " needs no network."
    )
    add_batch_options(parser)
    parser.add_argument(
        "--watch",
        action="store_true",
        help="follow a run that works in another terminal, until Ctrl-C",
    )
    parser.add_argument(
        "--serve",
        action="store_true",
        help="follow it on a web page, with the pictures and a button that drains the run; anyone"
        " who has the page's secret address can see the batch and stop the run; other machines"
        " need a tunnel: ssh -L 8643:127.0.0.1:8643 HOST",
    )
    parser.add_argument(
        "--stop",
        action="store_true",
        help="drain the run: it submits nothing more, collects paid jobs, and ends",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="with --serve: listen on this address (default: %(default)s, this machine only)",
    )
    parser.add_argument(
        "--port",
        dest="serve_port",
        type=int,
        metavar="PORT",
        help="with --serve: listen on this port (default: 8643, or any free one)",
    )


def execute(arguments: Arguments) -> int:
    """Show how the batch stands, once or again and again, or drain its run."""
    if arguments.serve + arguments.stop + arguments.json > 1:
        raise UsageError("use only one of --serve, --json and --stop", hint="leave the others out")
    if arguments.watch or arguments.serve:
        asyncio.run(
            watch(
                lambda: read_batch(arguments),
                as_json=arguments.json,
                serve_at=(arguments.host, arguments.serve_port) if arguments.serve else None,
            )
        )
        return ExitCode.DONE
    batch = read_batch(arguments)
    if arguments.stop:
        return _stop(batch)
    found = status(batch)
    report_rehearsal(arguments, "status", batch)
    if arguments.json:
        # Scripts know the other fields: these are there only if there is something to count.
        shown = msgspec.structs.asdict(found).items()
        print_lines([{name: value for name, value in shown if value or name not in RARE}])
    else:
        show(status_text(batch, found))
    return ExitCode.DONE


def _stop(batch: Batch) -> int:
    """Drain the runs that are at work, like the button of the page."""
    if stop_runs(batch.ledgers.paths()):
        say("asked the run to stop: it submits nothing more, and collects paid jobs")
    else:
        say("no run is at work")
    return ExitCode.DONE
