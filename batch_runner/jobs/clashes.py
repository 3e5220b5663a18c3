"""Jobs of one batch that share a key or a path: both would be one job to a person, or one file.

Hides that only hashes of keys and paths are kept, so that memory hardly grows with the jobs. What
always holds: a clash is reported with the first job that has the name, and never for names that
merely share a hash.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from operator import itemgetter

from batch_runner.jobs.blame import Blame
from batch_runner.records import Job
from batch_runner.table.distinct import Distinct
from batch_runner.text.path import collision_key

_OUTPUTS_COMPARED = 100
"""Only this many outputs of a job are compared; models make a handful."""

_KEY = "/"
"""Begins a key among names; no path does."""


class Clashes:
    """The jobs whose key or path was seen before; its length is their number.

    `expand_again` yields the jobs from the start: None for those that have a problem.
    """

    def __init__(self, blame: Blame, expand_again: Callable[[], Iterator[Job | None]]) -> None:
        self._blame = blame
        self._expand_again = expand_again
        self._names = Distinct()
        self._found: list[tuple[int, Job]] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, position: int, job: Job) -> bool:
        """Tell whether a job seems to clash with an earlier one; if so, it is kept."""
        is_new = True
        for name in _names(job):
            is_new = self._names.add(name) and is_new
        if not is_new:
            self._found.append((position, job))
        return not is_new

    def settle(self) -> Iterator[Job]:
        """Report each clash with its earlier job; yield the jobs that only shared a hash."""
        if not self._found:
            return
        # If several jobs clash over one name, report the first: it is nearest to the cause.
        later: dict[str, tuple[int, Job]] = {}
        for entry in self._found:
            for name in _names(entry[1]):
                later.setdefault(name, entry)
        pairs: dict[str, tuple[int, Job, Job, str]] = {}
        earlier = itertools.islice(self._expand_again(), self._found[-1][0])
        for position, first in enumerate(earlier):
            for name in _names(first) if first is not None else ():
                place, second = later.get(name, (-1, None))
                if first is not None and second is not None and position < place:
                    pairs.setdefault(second.key, (place, first, second, name))
        for _, first, second, name in sorted(pairs.values(), key=itemgetter(0)):
            if name.startswith(_KEY):
                rows = [job.row for _, job in self._found if job.image_id == second.image_id]
                self._blame.same_key(first, second, [row for row in rows if row is not None])
            else:
                self._blame.same_path(first, second, name)
        innocent = [job for _, job in self._found if job.key not in pairs]
        self._found.clear()
        yield from innocent


def _names(job: Job) -> list[str]:
    """Return what no two jobs may share: the key, and each output's path as they are compared."""
    names = [_KEY + job.key, path := collision_key(job.path)]
    for number in range(2, min(job.outputs, _OUTPUTS_COMPARED) + 1):
        names.append(f"{path}-{number}")  # noqa: PERF401 - nearly always there is one output
    return names
