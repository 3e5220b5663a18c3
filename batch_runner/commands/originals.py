"""Saved pictures for commands that look at their pixels: where they are, and who decodes them.

What always holds: a picture that kills the process that decodes it costs nothing but itself; the
results come in the order of what was asked.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from typing import Generic, Self, TypeVar

from batch_runner.records import SavedFile
from batch_runner.run.batch import Batch
from batch_runner.text.path import superseded_path

_Asked = TypeVar("_Asked")
_Answer = TypeVar("_Answer")
_GROUP = 64


def original_of(batch: Batch) -> Callable[[SavedFile], str | bytes | None]:
    """Return a function that finds an original: its path, or its content if it is in a bucket."""
    root = batch.manifest.output.bucket if batch.bucket is not None else None

    def find(file: SavedFile) -> str | bytes | None:
        # By now, another job's file may have this one's name. The other name holds the hash.
        aside, found = superseded_path(file.path, file.sha256), None
        if root is None:
            places = [batch.output_dir / path for path in (aside, file.path)]
            return next((str(place) for place in places if place.is_file()), None)
        for path in (file.path, aside):
            with contextlib.suppress(FileNotFoundError):
                found = b"".join(batch.buckets.chunks(root.join(path)))
                if hashlib.sha256(found).hexdigest() == file.sha256:
                    break
        return found

    return find


class Workers(Generic[_Asked, _Answer]):
    """Processes that answer, during the block; `broken` answers for what killed its process.

    Once `is_left`, nothing more is begun.
    """

    def __init__(
        self,
        function: Callable[[_Asked], _Answer],
        broken: Callable[[_Asked], _Answer],
        is_left: Callable[[], bool] = lambda: False,
    ) -> None:
        self._is_left = is_left
        self._function = function
        self._broken = broken
        self._pool = self._new_pool()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def answers(self, asked: Iterable[_Asked]) -> Iterator[_Answer]:
        """Yield an answer for each; some of them are worked on ahead."""
        remaining = iter(asked)
        while not self._is_left() and (group := list(islice(remaining, _GROUP))):
            try:
                yield from list(self._pool.map(self._function, group))
            except BrokenExecutor:
                yield from [self._alone(one) for one in group]

    def _alone(self, one: _Asked) -> _Answer:
        self._pool.shutdown(cancel_futures=True)
        self._pool = self._new_pool()
        try:
            return self._pool.submit(self._function, one).result()
        except BrokenExecutor:
            return self._broken(one)

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            os.cpu_count() or 1, mp_context=get_context("spawn"), initializer=_begin_worker
        )


def _begin_worker() -> None:
    # Ctrl-C reaches the whole group, and the parent ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
