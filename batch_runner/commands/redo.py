"""`redo`: asks for jobs to be done again, because their pictures are not good enough."""

from __future__ import annotations

import argparse
import getpass

from batch_runner.commands.arguments import BatchArguments, add_batch_options
from batch_runner.commands.console import say
from batch_runner.commands.looking import read_live
from batch_runner.commands.output import command_again, print_lines
from batch_runner.errors import ExitCode, UsageError, did_you_mean
from batch_runner.ledger.job import Standing
from batch_runner.ledger.verdict import Word
from batch_runner.report.details import JobDetails
from batch_runner.run.redo import record_words, word_on
from batch_runner.text.quantity import counted


class Arguments(BatchArguments):
    jobs: list[str]
    note: str | None
    seed: int | None
    start: str


def declare(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Ask for jobs to be done again: the next run buys each once more, with another seed if the"
        " model has one. The old picture moves to superseded/ when the new one is saved."
    )
    add_batch_options(parser, only=False)
    parser.add_argument("jobs", nargs="+", metavar="KEY", help="the keys of the jobs")
    parser.add_argument(
        "--note", metavar="TEXT", help="what should be different; it is added to the prompt"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="the seed (default: another one)")
    parser.add_argument(
        "--from",
        dest="start",
        choices=("source", "result"),
        default="source",
        help="result: also send the picture that was rejected, as in 'make it lighter'",
    )


def execute(arguments: Arguments) -> int:
    """Record what is asked for; return the exit code."""
    live = read_live(arguments)
    wanted = list(dict.fromkeys(arguments.jobs))
    found: dict[str, JobDetails] = {}
    keys = []
    for details in live.details():
        keys.append(details.job.key)
        if details.job.key in wanted:
            found[details.job.key] = details
    for key in wanted:
        if key not in found:
            raise UsageError(f"there is no job '{key}'", hint=did_you_mean(key, keys))
        if found[key].standing is not Standing.DONE:
            what = f"'{key}' is {found[key].standing}, so it has no picture to do again"
            raise UsageError(what, hint=f"run it first: {command_again(arguments, 'run')}")
    how = {"note": arguments.note, "seed": arguments.seed, "start": arguments.start}
    said = [
        (one.job, word_on(one.job, one.files[0].sha256, Word.REDO, **how, by=getpass.getuser()))
        for one in map(found.__getitem__, wanted)
    ]
    record_words(live.batch, said)
    if arguments.json:
        print_lines([{"job": one.job, "fingerprint": one.fingerprint} for _, one in said])
    else:
        print(f"{counted(len(said), 'job')} will be done again")
        say(f"hint: buy the new pictures with {command_again(arguments, 'run')}")
    return ExitCode.DONE
