"""`run`: the batch, from its first record to telling people how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Any

from batch_runner.arguments import Arguments
from batch_runner.batch import Batch
from batch_runner.commands import plan
from batch_runner.commands.console import both, complain, say, silence_stdout
from batch_runner.commands.environment import environment_of_others
from batch_runner.commands.interrupts import obeying_signals
from batch_runner.commands.opening import opened, require_token
from batch_runner.commands.process import prepare_for_many_jobs
from batch_runner.commands.wording import wording
from batch_runner.errors import BatchRunnerError
from batch_runner.notice import Means, announce_end, announce_start
from batch_runner.pacing import Clock
from batch_runner.records import encode
from batch_runner.report.ending import Ending
from batch_runner.report.log import Log
from batch_runner.report.metrics import write_metrics
from batch_runner.report.progress import Progress
from batch_runner.report.text import summary_text
from batch_runner.run import Run, Summary
from batch_runner.runner import Stop


def execute(arguments: Arguments) -> int:
    """Run or resume the batch."""
    if arguments.dry_run:
        return plan.execute(arguments)
    prepare_for_many_jobs()
    return asyncio.run(_run_batch(arguments))


async def _run_batch(arguments: Arguments) -> int:
    async with opened(arguments) as batch:
        name, clock = batch.name, Clock()
        with Log(arguments.log_file, name, complain=say, clock=clock) as log:
            means = Means(
                environment=environment_of_others(),
                folder=batch.manifest.path.parent,
                say=both(say, log.say),
                clock=clock,
            )
            log.say(f"run of {arguments.manifest} begins")
            await announce_start(batch.manifest.notify, means)
            began = clock.monotonic()
            # Whoever was told that it starts is told how it ends, whatever ends it.
            try:
                summary = await _execute_run(arguments, batch, log)
            except Exception as error:
                ending = Ending.of_error(
                    batch, error, clock.monotonic() - began, is_sandbox=arguments.sandbox
                )
                log.say(ending.text)
                await _tell(arguments, batch, ending, means, log)
                raise
            try:
                _show(arguments, summary, log)
            finally:
                ending = Ending.of_summary(name, summary, **wording(arguments))
                await _tell(arguments, batch, ending, means, log)
    return summary.exit_code


async def _execute_run(arguments: Arguments, batch: Batch, log: Log) -> Summary:
    require_token(batch)
    with Progress(batch.name, sys.stderr, quiet=arguments.quiet) as progress:

        def listen(record: Any) -> None:
            progress(record)
            log(record)
            if arguments.json:
                put(encode(record))

        def put(line: bytes) -> None:
            """Print a record; a reader that goes away ends the run, and never breaks a job."""
            try:
                sys.stdout.buffer.write(line)
                sys.stdout.flush()
            except OSError as error:
                silence_stdout()
                why = f"the records cannot be printed any more: {error.strerror}"
                run.drain(Stop("output", why))

        say, begin = both(progress.say, log.say), both(progress.begin, log.begin)
        run = Run(batch, listener=listen, notice=say, on_survey=begin, on_upload=progress.uploaded)
        with obeying_signals(run, say, arguments.grace_s, arguments.on_interrupt):
            return await run.execute()


def _show(arguments: Arguments, summary: Summary, log: Log) -> None:
    text = summary_text(summary, **wording(arguments))
    log.say(text)
    if summary.error is not None:
        log.say(summary.error.message)
    # How the run ended is said by its exit code, whether or not anybody reads the text.
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr if arguments.json else sys.stdout, flush=True)
    if summary.error is not None:
        complain(summary.error)


async def _tell(arguments: Arguments, batch: Batch, ending: Ending, means: Means, log: Log) -> None:
    """Tell machines and people elsewhere; what fails here is said, and changes nothing."""
    if arguments.metrics is not None:
        try:
            write_metrics(arguments.metrics, ending, means.clock.now())
        except BatchRunnerError as error:
            means.say(error.message)
    await announce_end(batch.manifest.notify, ending, means)
    log.say(f"run ended with exit code {ending.exit_code:d}")
