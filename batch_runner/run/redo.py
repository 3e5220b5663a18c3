"""What is said about files: by a person, from a page, or by a check that asks for another try.

What always holds: all words are on the disk before `record_words` returns, or none is; a job is
redone at most as often as the manifest allows; nothing is bought here. The next run finds the new
job in place of the old one (`jobs.redo`), and buys it once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from batch_runner.errors import UsageError
from batch_runner.jobs.redo import redo_input
from batch_runner.ledger.verdict import Redo, Reviewed, Word
from batch_runner.ledger.verdict_book import Book
from batch_runner.manifest.validation import show
from batch_runner.records import Job, utc_now
from batch_runner.run.batch import Batch


def word_on(job: Job, sha256: str, word: Word, **more: Any) -> Reviewed:
    """Return a word on a job's file, said now."""
    about = {"at": utc_now(), "job": job.key, "fingerprint": job.fingerprint}
    return Reviewed(**{**about, **more}, sha256=sha256, word=word)


def record_words(batch: Batch, said: Sequence[tuple[Job, Reviewed]]) -> None:
    """Record what was said about files of these jobs.

    Raises UsageError if one may not be done again, or if its model refuses what would be sent.
    """
    for job, one in said:
        if one.word is Word.REDO:
            _require_possible(batch, job, one)
    Book(batch.ledgers.folder).append([one for _, one in said])


def _require_possible(batch: Batch, job: Job, said: Reviewed) -> None:
    model, times = batch.models[job.model], batch.manifest.review.redo_times
    if job.redo >= times:
        what = f"'{job.key}' was done again {job.redo} times, and review.redo.times is {times}"
        raise UsageError(what, hint="raise review.redo.times in the manifest")
    if said.seed is not None and not model.has_input("seed"):
        raise UsageError(f"{job.model} takes no seed", hint="leave out --seed")
    redo = Redo(
        replaces=job.fingerprint,
        count=job.redo + 1,
        note=said.note,
        seed=said.seed,
        start=said.start,
    )
    for finding in model.findings(redo_input(job.input, redo, model)):
        what = f"'{job.key}' cannot be sent like that: {finding.what}"
        raise UsageError(what, hint=finding.hint or f"the note was {show(said.note)}")
