"""What a job's input is, however its pictures are reached: the names that fingerprints are made of.

Hides how addresses are named without their signatures, and by earlier releases. What always holds:
inputs that differ in their addresses share no fingerprint within one batch, though what tells them
apart looks like a signature. Not promised: the same between two versions of a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from batch_runner.jobs.picture import Picture
from batch_runner.records import Job, former_identity, with_texts
from batch_runner.table.distinct import Distinct
from batch_runner.text.address import unsigned_url


def shared_numbers(jobs: Iterable[Job | None]) -> Distinct:
    """Return the fingerprints and aliases that jobs with different addresses would share.

    Only hashes are kept, so that memory hardly grows with the jobs.
    """
    seen, pairs, shared = Distinct(), Distinct(), Distinct()
    for job in jobs:
        numbers = () if job is None else (job.fingerprint, *job.aliases)
        for number in numbers:
            # The last is that of the addresses as they are written.
            is_new_pair = pairs.add(number + numbers[0 if job and job.is_named else -1])
            if not seen.add(number) and is_new_pair:
                shared.add(number)
    return shared


def without_shared(numbers: Sequence[str], shared: Distinct) -> tuple[str, tuple[str, ...]]:
    """Return a job's fingerprint, and others by which a ledger may know it.

    No fingerprint counts that jobs with different addresses would share: what looks like a
    signature tells their pictures apart. Then the addresses count as they are written.
    """
    own = numbers[-1] if numbers[0] in shared else numbers[0]
    return own, tuple(one for one in numbers[1:] if one != own and one not in shared)


def names_of(
    inputs: Mapping[str, Any],
    pictures: Iterable[Picture],
    place: Callable[[list[str]], dict[str, Any]],
) -> list[dict[str, Any]]:
    """Return what is sent under each name of its pictures (see `Picture.names`).

    `place` puts prompt and pictures beside `inputs`.
    """
    # Without pictures the names are those of the inputs alone.
    columns: Sequence[tuple[str, ...]] = [*zip(*(one.names for one in pictures), strict=True)]
    return [
        with_texts(dict(inputs), rename) | place(list(column))
        for rename, column in zip(_RENAMED, columns or [()] * 4, strict=True)
    ]


def holds_url(inputs: Mapping[str, Any]) -> bool:
    """Tell whether inputs may hold a URL: any that is more than a word or a number may."""
    return any(
        "://" in value if isinstance(value, str) else isinstance(value, list | dict)
        for value in inputs.values()
    )


def _renaming(rename: Callable[[str], str]) -> Callable[[str], str]:
    return lambda text: rename(text) if text[:8].lower() == "https://" else text


_AS_WRITTEN: Callable[[str], str] = str
_RENAMED = [_renaming(one) for one in (unsigned_url, unsigned_url, former_identity, _AS_WRITTEN)]
"""How addresses among the inputs are named if pictures have the names of `Picture.names`."""
