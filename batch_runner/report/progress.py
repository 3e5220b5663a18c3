"""Progress: a bar on a terminal, a line every half minute elsewhere.

`Progress` shows a run by its records, `draw_moment` a run of another process, `tracked` any other
work. Hides tqdm. What always holds: a message never tears the bar; jobs that earlier runs finished
count as done but not as speed, so the time left is right after a resume; jobs are counted as
`status` counts them. Not promised: that every record is drawn.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self, TextIO, TypeVar

from batch_runner.ledger.job import Standings
from batch_runner.records import (
    Cancelled,
    Failed,
    Record,
    Refused,
    Saved,
    Submitted,
    Succeeded,
    Unknown,
)
from batch_runner.run.plan import Action
from batch_runner.run.survey import Survey
from batch_runner.text.quantity import duration_text, rate_text
from batch_runner.text.shown import visible

if TYPE_CHECKING:
    from tqdm import tqdm

    from batch_runner.report.live import Moment

LINE_INTERVAL_S = 30.0
DRAW_INTERVAL_S = 0.5

_T = TypeVar("_T")

_BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{remaining} left, {rate_fmt}{postfix}]"


class Progress:
    """Shows a run's records. Use it as a context manager; call it with each record."""

    def __init__(self, name: str, stream: TextIO, *, quiet: bool = False) -> None:
        self._name = name
        self._stream = stream
        self._quiet = quiet
        self._jobs = 0
        self._done = 0
        self._bar: tqdm[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._open: set[str] = set()
        self._standings = Standings()
        self._cost_usd = Decimal(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._bar is not None:
            self._bar.set_postfix_str(self._figures())
            self._bar.close()

    def begin(self, survey: Survey) -> None:
        """Draw the bar: the survey says how many jobs there are, and how many are done."""
        self._jobs = survey.standings.jobs
        self._done = survey.counts[Action.SKIP] + survey.counts[Action.HOLD]
        self._standings = survey.standings
        if self._quiet:
            return
        if self._stream.isatty():
            from tqdm import tqdm  # noqa: PLC0415 - only a terminal has bars

            self._bar = tqdm(
                total=self._jobs,
                initial=self._done,
                unit=" jobs",
                file=self._stream,
                bar_format=_BAR,
                dynamic_ncols=True,
            )
        self._tick()

    def __call__(self, record: Record) -> None:
        """Take in one record."""
        why = None
        match record:
            case Submitted():
                self._open.add(record.fingerprint)
                return
            case Succeeded() | Saved() | Cancelled():
                pass
            case Failed() | Refused(again=False):
                why = f"{record.reason}: {record.message}"
            case Unknown():
                why = f"unknown: {record.why}"
            case _:
                return
        self._open.discard(record.fingerprint)
        self._cost_usd += getattr(record, "cost_usd", None) or 0
        if not isinstance(record, Succeeded):
            self._done += 1
            if self._bar is not None:
                self._bar.update(1)
        if why is not None:
            self.say(f"✗ {record.job}: {why}")

    def say(self, message: str) -> None:
        """Print a message for people, above the bar."""
        if self._bar is not None:
            self._bar.write(message, file=self._stream)
        else:
            self._stream.write(f"{message}\n")
            self._stream.flush()

    def _figures(self) -> str:
        counts = self._standings
        parts = [f"{len(self._open):,} in flight"]
        parts += [f"{counts.failed:,} failed"] if counts.failed else []
        parts += [f"{counts.unknown:,} unknown"] if counts.unknown else []
        return ", ".join([*parts, f"${self._cost_usd:,.2f}"])

    def _tick(self) -> None:
        """Show the figures, on a terminal twice a second: a run looks alive while no job ends."""
        if self._bar is None:
            interval_s = LINE_INTERVAL_S
            self.say(f"{self._name}: {self._done}/{self._jobs} jobs, {self._figures()}")
        else:
            interval_s = DRAW_INTERVAL_S
            self._bar.set_postfix_str(self._figures())
        self._timer = asyncio.get_running_loop().call_later(interval_s, self._tick)


def tracked(
    items: Iterable[_T],
    what: str,
    *,
    total: int | None = None,
    unit: str = "jobs",
    stream: TextIO | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> Iterator[_T]:
    """Yield the items, and show how many so far; a bar without a total goes away at the end."""
    stream = stream or sys.stderr
    if stream.isatty():
        from tqdm import tqdm  # noqa: PLC0415 - only a terminal has bars

        yield from tqdm(
            items,
            total=total,
            desc=what,
            file=stream,
            unit=f" {unit}",
            dynamic_ncols=True,
            delay=1.0 if total is None else 0.0,
            leave=total is not None,
        )
        return
    of = "" if total is None else f" of {total:,}"
    last_s = monotonic()
    for number, item in enumerate(items, start=1):
        yield item
        now_s = monotonic()
        if now_s - last_s >= LINE_INTERVAL_S:
            last_s = now_s
            stream.write(f"{what}: {number:,}{of} {unit}\n")
            stream.flush()


def show_planning(planned: Iterable[_T]) -> Iterator[_T]:
    """Show how far planning is: a large table takes a while."""
    return tracked(planned, "planning")


def draw_moment(stream: TextIO, text: str, moment: Moment, over: int) -> int:
    """Draw a status and a bar over so many lines; return how many lines there are now."""
    from tqdm import tqdm  # noqa: PLC0415 - only a terminal has bars
    from tqdm.utils import disp_trim  # noqa: PLC0415

    width, height = shutil.get_terminal_size()
    parts = [rate_text(moment.rate_per_s)] if moment.rate_per_s else []
    parts += [f"{duration_text(moment.left_s)} left"] if moment.left_s is not None else []
    parts += ["stopping"] if moment.is_draining else []
    bar = f"{{percentage:3.0f}}%|{{bar}}| {{n_fmt}}/{{total_fmt}} {', '.join(parts)}"
    lines = [
        *(disp_trim(visible(line), width) for line in text.split("\n")),
        tqdm.format_meter(moment.done, moment.jobs, 0, ncols=width, bar_format=bar),
    ][-height + 1 :]
    up = f"\x1b[{over}A" if over else ""
    stream.write(f"{up}\r\x1b[J" + "".join(f"{line}\n" for line in lines))
    stream.flush()
    return len(lines)
