"""Asking for jobs to be done again: by a person, from a page, or after a failed check.

What always holds: a request for a redo is on the disk before this returns; a job is redone at most
as often as the manifest allows; nothing is bought here. The next run finds the new job in place of
the old one (`jobs.redo`), and buys it once.
"""

from __future__ import annotations

from collections.abc import Sequence

from batch_runner.errors import UsageError
from batch_runner.jobs.redo import redo_input
from batch_runner.ledger.verdict import Redo, Reviewed, Word
from batch_runner.ledger.verdict_book import Book
from batch_runner.manifest.validation import show
from batch_runner.records import Job, utc_now
from batch_runner.run.batch import Batch


def ask_again(
    batch: Batch,
    jobs: Sequence[tuple[Job, str]],
    *,
    note: str | None = None,
    seed: int | None = None,
    start: str = "source",
    by: str | None = None,
    reason: str | None = None,
) -> list[Reviewed]:
    """Record that jobs are to be done again, all of them or none; return what was recorded.

    `jobs` are pairs: a job, and the SHA-256 of the file that is not good enough.
    Raises UsageError if one may not be done again, or if its model refuses what would be sent.
    """
    asked = []
    times = batch.manifest.review.redo_times
    for job, sha256 in jobs:
        model = batch.models[job.model]
        if job.redo >= times:
            what = f"'{job.key}' was done again {job.redo} times, and review.redo.times is {times}"
            raise UsageError(what, hint="raise review.redo.times in the manifest")
        if seed is not None and not model.has_input("seed"):
            raise UsageError(f"{job.model} takes no seed", hint="leave out --seed")
        redo = Redo(replaces=job.fingerprint, count=job.redo + 1, note=note, seed=seed, start=start)
        for finding in model.findings(redo_input(job.input, redo, model)):
            what = f"'{job.key}' cannot be sent like that: {finding.what}"
            raise UsageError(what, hint=finding.hint or f"the note was {show(note)}")
        asked.append(
            Reviewed(
                at=utc_now(),
                job=job.key,
                fingerprint=job.fingerprint,
                sha256=sha256,
                word=Word.REDO,
                reason=reason,
                note=note,
                by=by,
                seed=seed,
                start="result" if start == "result" else "source",
            )
        )
    Book(batch.ledgers.folder).append(asked)
    return asked
