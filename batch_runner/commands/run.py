"""`run`: runs or resumes a batch, and tells people elsewhere how it ended."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from batch_runner.clock import Clock
from batch_runner.commands.arguments import (
    BatchArguments,
    add_batch_options,
    add_purchases,
    count,
)
from batch_runner.commands.console import complain, is_interactive, say
from batch_runner.commands.context import open_batch, require_token
from batch_runner.commands.environment import environment_of_others
from batch_runner.commands.output import advice, command_again
from batch_runner.commands.process import on_signals, prepare_for_many_files
from batch_runner.errors import BatchRunnerError, ExitCode
from batch_runner.records import encode
from batch_runner.report.notify import notify_end, result_of_error, result_of_run
from batch_runner.report.progress import Progress, show_planning
from batch_runner.report.terminal import BackgroundWriter, in_background
from batch_runner.report.text import ignored_window, summary_text
from batch_runner.run.batch import Batch
from batch_runner.run.concerns import Concern
from batch_runner.run.execution import run_batch
from batch_runner.run.stop import Ending, Stop
from batch_runner.run.summary import Summary
from batch_runner.shards.shard import Shard
from batch_runner.text.quantity import counted

UNREAD_LIMIT_BYTES = 64 * 1024 * 1024
"""With this much of `--json` unread, the run submits nothing more."""

GRACE_S = 30.0
_SHARDS_LIMIT = 10_000
_FIRST_WAIT_S = 0.5


class Arguments(BatchArguments):
    more: list[str]
    grace_s: float
    quiet: bool


def declare(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Run a manifest, or resume it. A job that is done is never bought again, so the command is"
        " safe to repeat."
    )
    add_batch_options(parser)
    parser.add_argument(
        "more",
        nargs="*",
        default=[],
        metavar="MANIFEST",
        help="more manifests to run after it, such as the next steps of a chain",
    )
    _declare_purchases(parser)
    window = parser.add_mutually_exclusive_group()
    window.add_argument(
        "--wait",
        action="store_true",
        help="if the manifest's window is closed, wait until it opens",
    )
    window.add_argument("--now", action="store_true", help="ignore the manifest's window this time")
    parser.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="run shard I of N (I from 0 to N-1): shards may run at the same time, and share the"
        " limits and the budget",
    )
    parser.add_argument("--quiet", action="store_true", help="print no progress, only the summary")
    parser.add_argument(
        "--grace",
        dest="grace_s",
        type=float,
        default=GRACE_S,
        metavar="S",
        help="seconds to collect paid jobs after SIGTERM (default: %(default)g)",
    )
    parser.add_argument(
        "--faults",
        default="",
        metavar="SPEC",
        help="with --sandbox: let calls fail, as in lost-answer=5%%,error-500=2%%; for a list:"
        " batch-runner sandbox --faults list",
    )


def _declare_purchases(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=count, metavar="N", help="submit at most N jobs this time")
    add_purchases(parser)
    parser.add_argument(
        "--accept",
        action="append",
        default=[],
        choices=("same-pictures", "new-pictures", "files"),
        help="answer a question that stops a run: pictures with new addresses are the same as"
        " before (same-pictures: buys nothing) or other ones (new-pictures: buys their jobs); buy"
        " jobs although their files exist without a record (files)",
    )
    parser.add_argument(
        "--yes",
        dest="accept",
        action="append_const",
        const="cost",
        help="without a budget: don't ask before the first purchase (only a terminal is asked)",
    )


def _shard(text: str) -> Shard:
    numbers = re.fullmatch(r"([0-9]{1,5})/([0-9]{1,5})", text)
    if numbers is not None:
        shard = Shard(int(numbers[1]), int(numbers[2]))
        if shard.index < shard.count <= _SHARDS_LIMIT:
            return shard
    what = f"'{text}' is not I/N such as 0/4, with I from 0 to N-1 and N up to {_SHARDS_LIMIT:,}"
    raise argparse.ArgumentTypeError(what)


def execute(arguments: Arguments) -> int:
    """Run or resume the batch, or several in their order; return one exit code for all.

    A batch that stopped early stops those after it; one with failed jobs does not.
    """
    prepare_for_many_files()
    worst: int = ExitCode.DONE
    for path in (arguments.manifest, *map(Path, arguments.more)):
        if arguments.more:
            say(f"{path}:")
        one = Arguments(**{**vars(arguments), "manifest": path})
        out = BackgroundWriter(sys.stdout)
        try:
            code = asyncio.run(_run_and_notify(one, out))
        finally:
            _finish(out)
        if code not in (ExitCode.DONE, ExitCode.SOME_FAILED):
            return code
        worst = max(worst, code)
    return worst


def _finish(out: BackgroundWriter) -> None:
    """Wait until stdout was read; Ctrl-C ends the wait, because the ledger has all of it."""
    if out.finish(_FIRST_WAIT_S):
        return
    try:
        say("done; waiting until the output is read; press Ctrl-C to end now")
        out.finish()
    except KeyboardInterrupt:
        say(f"nobody read the last {out.waiting_bytes:,} bytes of the output")


async def _run_and_notify(arguments: Arguments, out: BackgroundWriter) -> int:
    async with open_batch(arguments) as batch:
        if (ignored := ignored_window(batch)) is not None:
            say(f"the manifest has a window for submits; {ignored}")
        clock = Clock()
        began = clock.monotonic()
        try:
            with in_background(sys.stderr):
                summary = await _execute_run(arguments, batch, out)
                summary = await _check_and_redo(arguments, batch, out, summary)
        except Exception as error:
            took_s = clock.monotonic() - began
            result = result_of_error(batch, error, took_s)
            await _notify(batch, result)
            raise
        try:
            _print_summary(arguments, summary, out)
        finally:
            await _notify(batch, result_of_run(batch.name, summary, advice(arguments)))
    return summary.exit_code


async def _notify(batch: Batch, result: Mapping[str, str]) -> None:
    await notify_end(
        batch.manifest.on_finish,
        result,
        environment=environment_of_others(),
        folder=batch.manifest.path.parent,
        say=say,
    )


async def _check_and_redo(
    arguments: Arguments, batch: Batch, out: BackgroundWriter, summary: Summary
) -> Summary:
    """Check the pictures, and run again for those that `review.redo.checks` buys once more.

    Returns the summary of it all. A run that was stopped or limited buys nothing more: the next run
    does what was asked for.
    """
    while batch.manifest.checks and (summary.stop is None or not summary.stop.at_once):
        from batch_runner.commands.check import check_after_run  # noqa: PLC0415 - brings Pillow

        try:
            asked = await check_after_run(batch, command_again(arguments, "check"))
        except BatchRunnerError as error:
            complain(error)  # the run itself is over, and its result stands
            break
        if not asked or summary.stop is not None or arguments.limit is not None:
            break
        say(f"{counted(asked, 'job')} will be done again, because a check failed")
        before, summary = summary, await _execute_run(arguments, batch, out)
        sums = ("submitted", "bought", "to_buy", "cost_usd", "elapsed_s", "orphans")
        summary = msgspec.structs.replace(
            summary, **{name: getattr(before, name) + getattr(summary, name) for name in sums}
        )
    return summary


async def _execute_run(arguments: Arguments, batch: Batch, out: BackgroundWriter) -> Summary:
    require_token(batch.options.token)
    ending = Ending()
    with Progress(batch.name, sys.stderr, quiet=arguments.quiet) as progress:

        def listen(record: Any) -> None:
            progress(record)
            if arguments.json:
                out.put(encode(record))
                # The run drains: no job breaks.
                if out.error is not None:
                    why = f"cannot print more records: {out.error.strerror}"
                    ending.end(Stop("output", why))
                elif out.waiting_bytes > UNREAD_LIMIT_BYTES:
                    ending.end(Stop("output", "nobody reads the records that --json prints"))

        with _handle_signals(ending, progress.say, arguments.grace_s):
            return await run_batch(
                batch,
                listener=listen,
                notice=progress.say,
                on_survey=progress.begin,
                shown=iter if arguments.quiet else show_planning,
                ask=_ask if is_interactive() else None,
                ending=ending,
            )


async def _ask(concern: Concern) -> bool:
    """Ask a person on the terminal; anything but yes is no."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()

    def read() -> None:
        line = sys.stdin.readline()
        if not answer.done():
            answer.set_result(line)

    say(f"{concern.message}\n{concern.question} [y/N]")
    # Not in a thread: a thread that waits for a line would keep the program from ending.
    loop.add_reader(sys.stdin.fileno(), read)
    try:
        return (await answer).strip().lower() in ("y", "yes")
    finally:
        loop.remove_reader(sys.stdin.fileno())


def _print_summary(arguments: Arguments, summary: Summary, out: BackgroundWriter) -> None:
    text = summary_text(summary, advice(arguments))
    if arguments.json:
        say(text)
    else:
        # The name of a folder may not be UTF-8.
        out.put(f"{text}\n".encode(errors="backslashreplace"))
    if summary.error is not None:
        complain(summary.error)


@contextlib.contextmanager
def _handle_signals(ending: Ending, say: Callable[[str], None], grace_s: float) -> Iterator[None]:
    """Drain at the first signal; leave at the second: all requests are on the disk."""
    loop = asyncio.get_running_loop()
    pressed: list[int] = []

    def leave(reason: str, message: str) -> None:
        ending.end(Stop(reason, message, at_once=True))
        say("leaving now; the next run collects what is paid for")

    def on_signal(number: int) -> None:
        pressed.append(number)
        why = ("interrupted", "interrupted by Ctrl-C")
        if number != signal.SIGINT:
            why = ("terminated", f"ended by {signal.Signals(number).name}")
        if len(pressed) > 1:
            leave(*why)
            return
        ending.end(Stop(*why))
        if number != signal.SIGINT:
            loop.call_later(grace_s, leave, *why)
        say("stopping: nothing more is submitted, paid jobs are collected; Ctrl-C again leaves now")

    with on_signals(on_signal):
        yield
