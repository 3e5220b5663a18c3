"""Progress of work that has no records: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO, TypeVar

LINE_INTERVAL_S = 30.0

_T = TypeVar("_T")


def counted(
    things: Iterable[_T],
    *,
    total: int | None,
    what: str,
    stream: TextIO,
    unit: str = "jobs",
    monotonic: Callable[[], float] = time.monotonic,
) -> Iterator[_T]:
    """Yield the things, and tell how far they are; without a total nothing of it stays."""
    if stream.isatty():
        from tqdm import tqdm  # noqa: PLC0415 - only a terminal has bars

        known = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]"
        yield from tqdm(
            things,
            total=total,
            desc=what,
            file=stream,
            bar_format=f"{{desc}}: {{n:,}} {unit} [{{elapsed}}]" if total is None else known,
            dynamic_ncols=True,
            delay=1.0 if total is None else 0.0,
            leave=total is not None,
        )
        return
    of = "" if total is None else f" of {total:,}"
    last_s = monotonic()
    for number, thing in enumerate(things, start=1):
        yield thing
        now_s = monotonic()
        if now_s - last_s >= LINE_INTERVAL_S:
            last_s = now_s
            stream.write(f"{what}: {number:,}{of} {unit}\n")
            stream.flush()


def show_planning(planned: Iterable[_T]) -> Iterator[_T]:
    """Tell how far planning is: a large table takes a while to go through."""
    return counted(planned, total=None, what="planning", stream=sys.stderr)
