"""`status`: shows how a batch stands, from its ledger alone; `--watch` follows a run elsewhere."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time

import msgspec

from batch_runner.commands.arguments import BatchArguments, add_batch_options
from batch_runner.commands.console import say
from batch_runner.commands.context import read_batch
from batch_runner.commands.output import print_lines, require_ledger
from batch_runner.errors import ExitCode
from batch_runner.ledger.tail import Replaced
from batch_runner.ledger.verdict_book import Book
from batch_runner.report.live import Live, stop_runs
from batch_runner.report.numbers import Numbers, numbers, numbers_text
from batch_runner.report.progress import draw_moment
from batch_runner.report.status import status
from batch_runner.report.text import status_text
from batch_runner.run.batch import Batch

_LOOK_INTERVAL_S = 1.0
_JUDGED = ("accepted", "rejected", "waiting", "usd_per_accepted")


class Arguments(BatchArguments):
    watch: bool
    stop: bool


def declare(parser: argparse.ArgumentParser) -> None:
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
        "--stop",
        action="store_true",
        help="drain the run: it submits nothing more, collects paid jobs, and ends",
    )


def execute(arguments: Arguments) -> int:
    """Show how the batch stands, once or again and again, or drain its run."""
    if arguments.watch:
        with contextlib.suppress(KeyboardInterrupt):
            _watch(arguments)
        return ExitCode.DONE
    batch = read_batch(arguments)
    if arguments.stop:
        return _stop(batch)
    found, judged = status(batch), _numbers(batch)
    require_ledger(arguments, batch, is_needed=False)
    if arguments.json:
        fields = msgspec.structs.asdict(found)
        if judged is not None:
            fields |= {name: getattr(judged, name) for name in _JUDGED}
        print_lines([fields])
    else:
        text = "" if judged is None else numbers_text(judged)
        print("\n".join(filter(None, (status_text(batch, found), text))))
    return ExitCode.DONE


def _numbers(batch: Batch) -> Numbers | None:
    """Count the verdicts; None if nobody judged anything, which most runs of `status` are for."""
    if not Book(batch.ledgers.folder).verdicts().people:
        return None
    live = Live(batch)
    live.read()
    return numbers(live.details(), live.state.spent_usd)


def _stop(batch: Batch) -> int:
    """Drain the runs that are at work, like the button of the page."""
    if stop_runs(batch.ledgers.paths()):
        say("asked the run to stop: it submits nothing more, and collects paid jobs")
    else:
        say("no run is at work")
    return ExitCode.DONE


def _watch(arguments: Arguments) -> None:
    """Show the batch every second until Ctrl-C; if not on a terminal, as a line for each change."""
    is_screen = not arguments.json and sys.stdout.isatty()
    live, shown, lines = None, None, 0
    while True:
        live = live or Live(read_batch(arguments))
        try:
            moment = live.look()
        except Replaced:
            live = None
            continue
        if is_screen:
            text = status_text(live.batch, moment)
            lines = draw_moment(sys.stdout, text, moment, lines)
        else:
            # Figures that follow from the time of day are no news.
            news = msgspec.structs.replace(moment, rate_per_s=None, left_s=None)
            if news != shown:
                print_lines([moment])
                sys.stdout.flush()
            shown = news
        time.sleep(_LOOK_INTERVAL_S)
