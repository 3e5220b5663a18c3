"""Progress of work that has no records: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO, TypeVar

from tqdm import tqdm

LINE_INTERVAL_S = 30.0

_T = TypeVar("_T")


def counted(
    things: Iterable[_T],
    *,
    total: int,
    what: str,
    stream: TextIO,
    unit: str = "jobs",
    monotonic: Callable[[], float] = time.monotonic,
) -> Iterator[_T]:
    """Yield the things, and tell how far they are."""
    if stream.isatty():
        bar = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]"
        yield from tqdm(
            things, total=total, desc=what, file=stream, bar_format=bar, dynamic_ncols=True
        )
        return
    last_s = monotonic()
    for number, thing in enumerate(things, start=1):
        yield thing
        now_s = monotonic()
        if now_s - last_s >= LINE_INTERVAL_S:
            last_s = now_s
            stream.write(f"{what}: {number:,} of {total:,} {unit}\n")
            stream.flush()
