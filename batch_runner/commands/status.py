"""`status`: the counts of a batch, from its ledger alone; `--watch` follows a run elsewhere.

With --watch it shows the batch in the terminal, with --serve as a web page, until a signal ends
it; --stop asks the run to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING

import msgspec

from batch_runner.clock import Clock
from batch_runner.commands.console import say, show
from batch_runner.commands.context import load, run_options
from batch_runner.commands.output import print_lines
from batch_runner.commands.process import on_signals
from batch_runner.errors import ExitCode, UsageError
from batch_runner.ledger.job import Standing
from batch_runner.report.live import Live, stop_runs
from batch_runner.report.moment import Moment
from batch_runner.report.progress import LINE_INTERVAL_S
from batch_runner.report.screen import Size, moment_line, screen_lines
from batch_runner.run.batch import Batch

if TYPE_CHECKING:
    from batch_runner.report.viewer import Viewer


import argparse

from batch_runner.commands.arguments import BatchArguments, add_batch_options
from batch_runner.commands.output import rehearsal_note
from batch_runner.report.status import RARE, status
from batch_runner.report.text import status_text

LOOK_INTERVAL_S = 1.0
SERVE_INTERVAL_S = 0.5
DEFAULT_PORT = 8643

# The alternate screen, so that what stood in the terminal comes back; no cursor meanwhile.
_ENTER_SCREEN = "\x1b[?1049h\x1b[?25l\x1b[H\x1b[2J"
_LEAVE_SCREEN = "\x1b[?25h\x1b[?1049l"
_HOME, _END_OF_LINE, _END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


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
    """Print where the batch stands."""
    if arguments.serve + arguments.stop > 1 or (
        arguments.json and arguments.serve + arguments.stop
    ):
        raise UsageError("--serve, --json and --stop exclude each other", hint="leave one out")
    if arguments.stop:
        return _stop(arguments)
    if arguments.watch or arguments.serve:
        asyncio.run(_watch(arguments))
        return ExitCode.DONE
    manifest = load(arguments)
    batch = Batch(manifest, run_options(arguments, manifest))
    found = status(batch)
    note = rehearsal_note(arguments, "status", batch)
    if note is not None:
        say(note)
    if arguments.json:
        # Scripts know the others: these come only when there is something to count.
        shown = msgspec.structs.asdict(found).items()
        print_lines([{name: value for name, value in shown if value or name not in RARE}])
    else:
        show(status_text(batch, found))
    return ExitCode.DONE


def _stop(arguments: Arguments) -> int:
    """Ask the runs that are at work to stop, as the page's button does."""
    asked = stop_runs(_opener(arguments)().ledgers.paths())
    if asked:
        say("asked to stop: nothing more is submitted, what is paid for is collected")
    else:
        say("no run is at work")
    return ExitCode.DONE


async def _watch(arguments: Arguments) -> None:
    with _until_signal() as ending:
        # Reading a large table takes a while, and Ctrl-C shall not.
        live = await asyncio.to_thread(Live, _opener(arguments), Clock(), ending.is_left)
        if arguments.serve:
            await _serve(arguments, live, ending)
        elif arguments.json:
            await _print_moments(live, ending)
        elif sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
            await _show_screen(live, ending)
        else:
            await _print_lines(live, ending)


def _opener(arguments: Arguments) -> Callable[[], Batch]:
    def open_batch() -> Batch:
        manifest = load(arguments)
        return Batch(manifest, run_options(arguments, manifest))

    return open_batch


class _Ending:
    """Whether it is time to end, and who waits for it. Other threads may ask."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self._left = threading.Event()

    def leave(self, _: int) -> None:
        self._left.set()
        self.news.set()

    def is_left(self) -> bool:
        return self._left.is_set()

    async def moments(self, live: Live, interval_s: float) -> AsyncIterator[Moment]:
        """Yield how the batch stands, again and again."""
        while not self.is_left():
            # In a thread: the first look at a long ledger takes a while, and Ctrl-C shall not.
            moment = await asyncio.to_thread(live.look)
            if self.is_left():
                return
            yield moment
            self.news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval_s):
                    await self.news.wait()


@contextlib.contextmanager
def _until_signal() -> Iterator[_Ending]:
    ending, loop = _Ending(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGWINCH, ending.news.set)
    with on_signals(ending.leave):
        try:
            yield ending
        finally:
            loop.remove_signal_handler(signal.SIGWINCH)


async def _show_screen(live: Live, ending: _Ending) -> None:
    colours = not os.environ.get("NO_COLOR")
    lines: list[str] = []
    sys.stdout.write(_ENTER_SCREEN)
    try:
        async for moment in ending.moments(live, LOOK_INTERVAL_S):
            columns, rows = shutil.get_terminal_size()
            lines = screen_lines(moment, live.pictures, Size(columns, rows, colours))
            frame = f"{_END_OF_LINE}\n".join(lines)
            sys.stdout.write(f"{_HOME}{frame}{_END_OF_LINE}{_END_OF_SCREEN}")
            sys.stdout.flush()
    finally:
        sys.stdout.write(_LEAVE_SCREEN)
        # What was seen last stays, without the line on how to leave.
        sys.stdout.writelines(f"{line}\n" for line in lines[:-1])
        sys.stdout.flush()


async def _serve(arguments: Arguments, live: Live, ending: _Ending) -> None:
    async with contextlib.AsyncExitStack() as stack:
        viewer = await _open_viewer(arguments, live, stack)
        print(viewer.url, flush=True)
        say("open this address in a browser: whoever knows it sees the batch and can stop the run")
        if not viewer.is_for_this_machine:
            say("warning: it goes over the network unencrypted; a tunnel (ssh -L) is safer")
        say("Ctrl-C ends the page; the run goes on")
        async for moment in ending.moments(live, SERVE_INTERVAL_S):
            viewer.show(moment, live.pictures)


async def _open_viewer(
    arguments: Arguments, live: Live, stack: contextlib.AsyncExitStack
) -> Viewer:
    from batch_runner.report.viewer import Copies, Viewer  # noqa: PLC0415 - heavy, and only for this

    def chunks(path: str) -> Iterator[bytes]:
        # Of the batch as it is now: it is read anew when a run begins.
        bucket = live.batch.manifest.output.bucket
        if bucket is None or live.batch.bucket is None:
            raise FileNotFoundError(path)
        return live.batch.buckets.chunks(bucket.join(path))

    def stop() -> int:
        return stop_runs(live.batch.ledgers.paths())

    copies = stack.enter_context(Copies(chunks, say))
    ports = (DEFAULT_PORT, 0) if arguments.serve_port is None else (arguments.serve_port,)
    for port in ports:
        try:
            viewer = Viewer(stop, host=arguments.host, port=port, copies=copies)
            return await stack.enter_async_context(viewer)
        except (OSError, OverflowError) as error:
            trouble = error
    raise UsageError(
        f"cannot listen on {arguments.host}: {getattr(trouble, 'strerror', None) or trouble}",
        hint="choose another --host or --port",
    ) from trouble


async def _print_lines(live: Live, ending: _Ending) -> None:
    async for moment in ending.moments(live, LINE_INTERVAL_S):
        print(moment_line(moment), flush=True)


async def _print_moments(live: Live, ending: _Ending) -> None:
    shown: tuple[object, ...] = ()
    async for moment in ending.moments(live, LOOK_INTERVAL_S):
        # The time of day, and what follows from it alone, is no news.
        counts = [moment.count(standing) for standing in Standing]
        news = (moment.generation, *counts, moment.cost_usd, moment.runs, moment.notes)
        if news != shown:
            shown = news
            print_lines([moment])
            sys.stdout.flush()
