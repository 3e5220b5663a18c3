"""`run`: the batch, from its first record to telling people how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from batch_runner.arguments import Arguments
from batch_runner.batch import Batch
from batch_runner.clock import Clock
from batch_runner.commands.console import both, complain, is_interactive, say
from batch_runner.commands.environment import environment_of_others, unset_variables
from batch_runner.commands.interrupts import obeying_signals, on_signals
from batch_runner.commands.opening import opened, require_token
from batch_runner.commands.process import prepare_for_many_files
from batch_runner.commands.wording import wording
from batch_runner.concerns import Concern
from batch_runner.errors import BatchRunnerError
from batch_runner.notice import Means, announce_end, announce_start
from batch_runner.records import encode
from batch_runner.report.counting import show_planning
from batch_runner.report.ending import Ending
from batch_runner.report.folding import fitted
from batch_runner.report.log import Log
from batch_runner.report.metrics import write_metrics
from batch_runner.report.outlet import Outlet
from batch_runner.report.progress import Progress
from batch_runner.report.stream import in_background
from batch_runner.report.text import ignored_window, summary_text
from batch_runner.run import Run, Summary
from batch_runner.runner.terms import Stop

UNREAD_LIMIT_BYTES = 64 * 1024 * 1024
"""With so much of `--json` unread, nothing more is submitted."""

_FIRST_WAIT_S = 0.5
_WAIT_S = 0.05


def execute(arguments: Arguments) -> int:
    """Run or resume the batch."""
    if arguments.dry_run:
        from batch_runner.commands import plan  # noqa: PLC0415 - a run has a plan, and prints none

        return plan.execute(arguments)
    prepare_for_many_files()
    return asyncio.run(_run_batch(arguments))


async def _run_batch(arguments: Arguments) -> int:
    out = Outlet(sys.stdout)
    try:
        code = await _run_opened(arguments, out)
    except Exception:
        await _deliver(out)
        raise
    await _deliver(out)
    return code


async def _deliver(out: Outlet) -> None:
    """Wait for whoever reads stdout; a signal ends the waiting, for the ledger has it all."""
    left = asyncio.Event()
    with on_signals(lambda _: left.set()):
        is_out = out.finish(_FIRST_WAIT_S)
        if not is_out:
            say("done; waiting for whoever reads the output; Ctrl-C to wait no longer")
        while not is_out and not left.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WAIT_S):
                    await left.wait()
            is_out = out.finish(0)
    if not is_out:
        say(f"nobody read the last {out.waiting_bytes:,} bytes of the output")


async def _run_opened(arguments: Arguments, out: Outlet) -> int:
    async with opened(arguments) as batch:
        name, clock = batch.name, Clock()
        with Log(arguments.log_file, name, complain=say, clock=clock) as log:
            means = Means(
                environment=environment_of_others(),
                folder=batch.manifest.path.parent,
                say=both(say, log.say),
                clock=clock,
                proxies=batch.options.proxies,
            )
            log.say(f"run of {arguments.manifest} begins")
            for note in _first_notes(batch):
                means.say(note)
            await announce_start(batch.manifest.notify, means)
            began = clock.monotonic()
            # Whoever was told that it starts is told how it ends, whatever ends it.
            try:
                with in_background(sys.stderr):
                    summary = await _execute_run(arguments, batch, log, out)
            except Exception as error:
                ending = Ending.of_error(
                    batch, error, clock.monotonic() - began, is_sandbox=arguments.sandbox
                )
                log.say(ending.text)
                await _tell(arguments, batch, ending, means, log)
                raise
            try:
                _show(arguments, summary, log, out)
            finally:
                ending = Ending.of_summary(name, summary, **wording(arguments))
                await _tell(arguments, batch, ending, means, log)
    return summary.exit_code


def _first_notes(batch: Batch) -> Iterator[str]:
    yield from unset_variables(batch.manifest)
    ignored = ignored_window(batch)
    if ignored is not None:
        yield f"the manifest has a window for submits; {ignored}"


async def _execute_run(arguments: Arguments, batch: Batch, log: Log, out: Outlet) -> Summary:
    require_token(batch)
    if not arguments.quiet:
        batch.show_planning = show_planning
    loop = asyncio.get_running_loop()
    with Progress(batch.name, sys.stderr, quiet=arguments.quiet) as progress:

        def listen(record: Any) -> None:
            progress(record)
            log(record)
            if arguments.json:
                out.put(encode(record))
                if out.waiting_bytes > UNREAD_LIMIT_BYTES:
                    run.drain(Stop("output", "nobody reads the records that --json prints"))

        def stop(error: OSError) -> None:
            why = f"the records cannot be printed any more: {error.strerror}"
            # From the thread that writes. A reader that goes away ends the run, and breaks no job.
            loop.call_soon_threadsafe(run.drain, Stop("output", why))

        say, begin = both(progress.say, log.say), both(progress.begin, log.begin)
        run = Run(
            batch,
            listener=listen,
            notice=say,
            on_survey=begin,
            on_upload=progress.uploaded,
            ask=_ask if is_interactive() else None,
        )
        signals = obeying_signals(run, say, arguments.grace_s, arguments.on_interrupt)
        with signals, out.watched(stop):
            return await run.execute()


async def _ask(concern: Concern) -> bool:
    """Ask a person on the terminal; anything but yes is no."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()

    def read() -> None:
        line = sys.stdin.readline()
        if not answer.done():
            answer.set_result(line)

    say(f"{concern.message}\n{concern.question} [y/N]")
    # Not in a thread: one that waits for a line would keep the program from ending.
    loop.add_reader(sys.stdin.fileno(), read)
    try:
        return (await answer).strip().lower() in ("y", "yes")
    finally:
        loop.remove_reader(sys.stdin.fileno())


def _show(arguments: Arguments, summary: Summary, log: Log, out: Outlet) -> None:
    text = summary_text(summary, **wording(arguments))
    log.say(text)
    if summary.error is not None:
        log.say(summary.error.message)
    # How the run ended is said by its exit code, whether or not anybody reads the text.
    if arguments.json:
        say(text)
    else:
        # A folder's name need not be UTF-8.
        out.put(f"{fitted(text, sys.stdout)}\n".encode(errors="backslashreplace"))
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
