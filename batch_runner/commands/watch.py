"""`status --watch`: follows a batch in the terminal, or as JSON lines.

Hides how a terminal shows moments one after another. What always holds: Ctrl-C ends it at once,
leaves the run alone, and brings back what the terminal showed before.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator

from batch_runner.clock import Clock
from batch_runner.commands.output import print_lines
from batch_runner.commands.process import on_signals
from batch_runner.ledger.job import Standing
from batch_runner.report.live import Live
from batch_runner.report.moment import Moment
from batch_runner.report.screen import screen_lines
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
        self._event = asyncio.Event()
        self.is_left = self._event.is_set

    def leave(self, _: int) -> None:
        """End."""
        self._event.set()

    async def turns(self, interval_s: float) -> AsyncIterator[None]:
        """Yield every `interval_s` seconds, until a signal comes."""
        while not self.is_left():
            yield
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval_s):
                    await self._event.wait()


@contextlib.contextmanager
def until_signal() -> Iterator[Ending]:
    """Give an Ending that a signal ends."""
    ending = Ending()
    with on_signals(ending.leave):
        yield ending


async def watch(open_batch: Callable[[], Batch], *, as_json: bool) -> None:
    """Show the batch again and again until a signal comes; as JSON lines if not on a terminal."""
    with until_signal() as ending, contextlib.ExitStack() as stack:
        # In a thread, so that Ctrl-C works while a large table or a long ledger is read.
        live = await asyncio.to_thread(Live, open_batch, Clock(), ending.is_left)
        is_screen = not as_json and sys.stdout.isatty()
        show = stack.enter_context(_screen(live)) if is_screen else _json_lines()
        async for _ in ending.turns(LOOK_INTERVAL_S):
            moment = await asyncio.to_thread(live.look)
            if not ending.is_left():
                show(moment)
                sys.stdout.flush()


def _json_lines() -> Callable[[Moment], None]:
    shown: tuple[object, ...] = ()

    def show(moment: Moment) -> None:
        nonlocal shown
        # The time of day, and figures that follow from it alone, are no news.
        counts = [moment.count(standing) for standing in Standing]
        news = (moment.generation, *counts, moment.cost_usd, moment.runs, moment.notes)
        if news != shown:
            shown = news
            print_lines([moment])

    return show


@contextlib.contextmanager
def _screen(live: Live) -> Iterator[Callable[[Moment], None]]:
    lines: list[str] = []

    def show(moment: Moment) -> None:
        text = status_text(live.batch, moment)
        lines[:] = screen_lines(text, moment, *shutil.get_terminal_size())
        frame = f"{_END_OF_LINE}\n".join(lines)
        sys.stdout.write(f"{_HOME}{frame}{_END_OF_LINE}{_END_OF_SCREEN}")

    sys.stdout.write(_ENTER_SCREEN)
    try:
        yield show
    finally:
        sys.stdout.write(_LEAVE_SCREEN)
        # The last view stays, without the line on how to leave.
        sys.stdout.writelines(f"{line}\n" for line in lines[:-1])
        sys.stdout.flush()
