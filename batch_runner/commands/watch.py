"""`status --watch`: follows a batch in the terminal, or as JSON lines.

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

from batch_runner.clock import Clock
from batch_runner.commands.output import print_lines
from batch_runner.commands.process import on_signals
from batch_runner.ledger.job import Standing
from batch_runner.report.live import Live
from batch_runner.report.moment import Moment
from batch_runner.report.progress import LINE_INTERVAL_S
from batch_runner.report.screen import moment_line, screen_lines
from batch_runner.report.text import status_text
from batch_runner.run.batch import Batch

LOOK_INTERVAL_S = 1.0

# The alternate screen, which brings back what the terminal showed before; no cursor meanwhile.
_ENTER_SCREEN = "\x1b[?1049h\x1b[?25l\x1b[H\x1b[2J"
_LEAVE_SCREEN = "\x1b[?25h\x1b[?1049l"
_HOME, _END_OF_LINE, _END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


class Ending:
    """Whether a signal asked to end, and the wait for it; any thread may read it."""

    def __init__(self) -> None:
        self._news = asyncio.Event()
        self._left = threading.Event()

    def leave(self, _: int) -> None:
        """End."""
        self._left.set()
        self._news.set()

    def look_now(self) -> None:
        """End the current pause."""
        self._news.set()

    def is_left(self) -> bool:
        """Return whether a signal came."""
        return self._left.is_set()

    async def turns(self, interval_s: float) -> AsyncIterator[None]:
        """Yield every `interval_s` seconds, until a signal comes."""
        while not self.is_left():
            yield
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0 if self.is_left() else interval_s):
                    await self._news.wait()


@contextlib.contextmanager
def until_signal() -> Iterator[Ending]:
    """Give an Ending that a signal ends."""
    ending, loop = Ending(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGWINCH, ending.look_now)
    with on_signals(ending.leave):
        try:
            yield ending
        finally:
            loop.remove_signal_handler(signal.SIGWINCH)


async def watch(open_batch: Callable[[], Batch], *, as_json: bool) -> None:
    """Show the batch again and again until a signal comes."""
    with until_signal() as ending:
        # In a thread, so that Ctrl-C works while a large table or a long ledger is read.
        live = await asyncio.to_thread(Live, open_batch, Clock(), ending.is_left)
        is_screen = not as_json and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        show = _JsonLines() if as_json else _Screen(live) if is_screen else _Lines()
        with show:
            async for _ in ending.turns(
                LOOK_INTERVAL_S if as_json or is_screen else LINE_INTERVAL_S
            ):
                moment = await asyncio.to_thread(live.look)
                if not ending.is_left():
                    show(moment)
                    sys.stdout.flush()


class _Lines(contextlib.AbstractContextManager["_Lines"]):
    def __call__(self, moment: Moment) -> None:
        print(moment_line(moment))

    def __exit__(self, *_: object) -> None:
        """Do nothing."""


class _JsonLines(_Lines):
    def __init__(self) -> None:
        self._shown: tuple[object, ...] = ()

    def __call__(self, moment: Moment) -> None:
        # The time of day, and figures that follow from it alone, are no news.
        counts = [moment.count(standing) for standing in Standing]
        news = (moment.generation, *counts, moment.cost_usd, moment.runs, moment.notes)
        if news != self._shown:
            self._shown = news
            print_lines([moment])


class _Screen(_Lines):
    def __init__(self, live: Live) -> None:
        self._live = live
        self._lines: list[str] = []
        sys.stdout.write(_ENTER_SCREEN)

    def __call__(self, moment: Moment) -> None:
        text = status_text(self._live.batch, moment)
        self._lines = screen_lines(text, moment, *shutil.get_terminal_size())
        frame = f"{_END_OF_LINE}\n".join(self._lines)
        sys.stdout.write(f"{_HOME}{frame}{_END_OF_LINE}{_END_OF_SCREEN}")

    def __exit__(self, *_: object) -> None:
        sys.stdout.write(_LEAVE_SCREEN)
        # The last view stays, without the line on how to leave.
        sys.stdout.writelines(f"{line}\n" for line in self._lines[:-1])
        sys.stdout.flush()
