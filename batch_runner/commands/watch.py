"""`status --watch`: follows a batch in the terminal, as JSON lines or as a web page.

Hides how a terminal shows moments one after another. What always holds: Ctrl-C ends it at once,
leaves the run alone, and brings back what the terminal showed before.
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

from batch_runner.clock import Clock
from batch_runner.commands.console import say
from batch_runner.commands.output import print_lines
from batch_runner.commands.process import on_signals
from batch_runner.errors import UsageError
from batch_runner.ledger.job import Standing
from batch_runner.report.live import Live, stop_runs
from batch_runner.report.moment import Moment
from batch_runner.report.progress import LINE_INTERVAL_S
from batch_runner.report.screen import Size, moment_line, screen_lines
from batch_runner.run.batch import Batch

if TYPE_CHECKING:
    from batch_runner.report.viewer import Viewer

LOOK_INTERVAL_S = 1.0
SERVE_INTERVAL_S = 0.5
DEFAULT_PORT = 8643

# The alternate screen, which brings back what the terminal showed before; no cursor meanwhile.
_ENTER_SCREEN = "\x1b[?1049h\x1b[?25l\x1b[H\x1b[2J"
_LEAVE_SCREEN = "\x1b[?25h\x1b[?1049l"
_HOME, _END_OF_LINE, _END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


async def watch(
    open_batch: Callable[[], Batch], *, as_json: bool, serve_at: tuple[str, int | None] | None
) -> None:
    """Show the batch again and again until a signal comes; `serve_at` is a page's host and port."""
    with _until_signal() as ending:
        # In a thread, so that Ctrl-C works while a large table is read.
        live = await asyncio.to_thread(Live, open_batch, Clock(), ending.is_left)
        if serve_at is not None:
            await _serve(*serve_at, live, ending)
        elif as_json:
            await _print_moments(live, ending)
        elif sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
            await _show_screen(live, ending)
        else:
            await _print_lines(live, ending)


class _Ending:
    """Whether a signal asked to end, and the wait for it; any thread may read it."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self._left = threading.Event()

    def leave(self, _: int) -> None:
        self._left.set()
        self.news.set()

    def is_left(self) -> bool:
        return self._left.is_set()

    async def moments(self, live: Live, interval_s: float) -> AsyncIterator[Moment]:
        """Yield how the batch stands, every `interval_s` seconds."""
        while not self.is_left():
            # In a thread, so that Ctrl-C works while a long ledger is read.
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
        # The last view stays, without the line on how to leave.
        sys.stdout.writelines(f"{line}\n" for line in lines[:-1])
        sys.stdout.flush()


async def _serve(host: str, port: int | None, live: Live, ending: _Ending) -> None:
    async with contextlib.AsyncExitStack() as stack:
        viewer = await _open_viewer(host, port, live, stack)
        print(viewer.url, flush=True)
        say(
            "open this address in a browser; anyone who knows it can see the batch and stop the run"
        )
        if not viewer.is_for_this_machine:
            say("warning: the page is sent unencrypted; a tunnel (ssh -L) is safer")
        say("Ctrl-C closes the page; the run continues")
        async for moment in ending.moments(live, SERVE_INTERVAL_S):
            viewer.show(moment, live.pictures)


async def _open_viewer(
    host: str, port: int | None, live: Live, stack: contextlib.AsyncExitStack
) -> Viewer:
    from batch_runner.report.viewer import Copies, Viewer  # noqa: PLC0415 - brings aiohttp and PIL

    def chunks(path: str) -> Iterator[bytes]:
        # The batch of this moment: it is read again when a run starts.
        bucket = live.batch.manifest.output.bucket
        if bucket is None or live.batch.bucket is None:
            raise FileNotFoundError(path)
        return live.batch.buckets.chunks(bucket.join(path))

    def stop() -> int:
        return stop_runs(live.batch.ledgers.paths())

    copies = stack.enter_context(Copies(chunks, say))
    for number in (DEFAULT_PORT, 0) if port is None else (port,):
        try:
            viewer = Viewer(stop, host=host, port=number, copies=copies)
            return await stack.enter_async_context(viewer)
        except (OSError, OverflowError) as error:
            trouble = error
    raise UsageError(
        f"cannot listen on {host}: {getattr(trouble, 'strerror', None) or trouble}",
        hint="choose another --host or --port",
    ) from trouble


async def _print_lines(live: Live, ending: _Ending) -> None:
    async for moment in ending.moments(live, LINE_INTERVAL_S):
        print(moment_line(moment), flush=True)


async def _print_moments(live: Live, ending: _Ending) -> None:
    shown: tuple[object, ...] = ()
    async for moment in ending.moments(live, LOOK_INTERVAL_S):
        # The time of day, and figures that follow from it alone, are no news.
        counts = [moment.count(standing) for standing in Standing]
        news = (moment.generation, *counts, moment.cost_usd, moment.runs, moment.notes)
        if news != shown:
            shown = news
            print_lines([moment])
            sys.stdout.flush()
