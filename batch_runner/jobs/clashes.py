"""Jobs of one batch that share a key or a path: both would be one job to a person, or one file.

Hides that only hashes of keys and paths are kept, so that memory hardly grows with the jobs. What
always holds: a clash is reported with the first job that has the name, and never for names that
merely share a hash.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from batch_runner.jobs.blame import Blame
from batch_runner.records import Job
from batch_runner.table.distinct import Distinct
from batch_runner.text.path import collision_key

_OUTPUTS_COMPARED = 100
"""Only this many outputs of a job are compared; models make a handful."""


class Clashes:
    """The jobs whose key or path was seen before; its length is their number.

    `expand_again` yields the jobs from the start: None for those that have a problem.
    """

    def __init__(self, blame: Blame, expand_again: Callable[[], Iterator[Job | None]]) -> None:
        self._blame = blame
        self._expand_again = expand_again
        self._keys = Distinct()
        self._paths = Distinct()
        self._found: list[tuple[int, Job]] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, position: int, job: Job) -> bool:
        """Tell whether a job seems to clash with an earlier one; if so, it is kept."""
        is_new = self._keys.add(job.key)
        if job.outputs == 1:  # nearly all jobs
            is_new = self._paths.add(collision_key(job.path)) and is_new
        else:
            new_paths = [self._paths.add(claim) for claim in _claims(job)]
            is_new = is_new and all(new_paths)
        if not is_new:
            self._found.append((position, job))
        return not is_new

    def settle(self) -> Iterator[Job]:
        """Report each clash with its earlier job; yield the jobs that only shared a hash."""
        if not self._found:
            return
        # If several jobs clash over one name, report the first: it is nearest to the cause.
        keys: dict[str, tuple[int, Job]] = {}
        rows: dict[str | None, list[int]] = {}
        claims: dict[str, tuple[int, Job]] = {}
        for entry in self._found:
            keys.setdefault(entry[1].key, entry)
            if entry[1].row is not None:
                rows.setdefault(entry[1].image_id, []).append(entry[1].row)
            for claim in _claims(entry[1]):
                claims.setdefault(claim, entry)
        guilty: set[str] = set()
        pairs: list[tuple[int, Job, Job, str | None]] = []
        before_the_last = itertools.islice(self._expand_again(), self._found[-1][0])
        for position, first in enumerate(before_the_last):
            if first is None:
                continue
            later_position, later = keys.get(first.key, (-1, first))
            if position < later_position:
                guilty.add(later.key)
                pairs.append((later_position, first, later, None))
                continue
            for claim in _claims(first):
                later_position, later = claims.get(claim, (-1, first))
                if position < later_position and later.key not in guilty:
                    guilty.add(later.key)
                    pairs.append((later_position, first, later, claim))
        for _, first, later, shared in sorted(pairs, key=lambda pair: pair[0]):
            if shared is None:
                self._blame.same_key(first, later, rows.get(later.image_id, []))
            else:
                self._blame.same_path(first, later, shared)
        innocent = [job for _, job in self._found if job.key not in guilty]
        self._found.clear()
        yield from innocent


def _claims(job: Job) -> list[str]:
    """Return the path of each of a job's outputs, as collisions are compared."""
    first = collision_key(job.path)
    outputs = min(job.outputs, _OUTPUTS_COMPARED)
    return [first, *(f"{first}-{number}" for number in range(2, outputs + 1))]
