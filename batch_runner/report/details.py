"""Everything known about each job, from manifest and ledger: the source of the page and the table.

Hides which record holds what. What always holds: one JobDetails for each job of the manifest, in
its order; nothing secret, because URLs are redacted; if several jobs share one purchase, its cost
is shown at the first of them only, so that the sum is right. Memory grows by a small struct for
each fingerprint in the ledger, never with pictures, prompts or rows.

`took_s` is how long the request was at the service, its queue included.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, assert_never

import msgspec

from batch_runner.ledger.job import JobState, Standing
from batch_runner.ledger.verdict import Checked, Reviewed
from batch_runner.records import (
    Job,
    JobRecord,
    Saved,
    SavedFile,
    Submitted,
    Submitting,
    Succeeded,
)
from batch_runner.run.batch import Batch
from batch_runner.run.plan import wanted_paths
from batch_runner.run.resolve import read_time


class JobDetails(msgspec.Struct, frozen=True, kw_only=True):
    """One job of the manifest, and how it stands.

    `inputs` are sent beside prompt and pictures; `sources` are the URLs of the pictures, and
    `fetchable` the same URLs with the signatures they need, never to be written anywhere; `local`
    maps some of them to files of this machine. `attempts` counts submits. `reason` is the ledger's
    word, `message` the service's. `previous` are the files that a redo replaces; `reviewed` is what
    a person said about each file, `checked` the checks that a file did not pass.
    """

    job: Job
    standing: Standing
    prompt: str
    sources: tuple[str, ...]
    fetchable: tuple[str, ...]
    local: Mapping[str, str]
    inputs: Mapping[str, Any]
    cells: Mapping[str, Any]
    reason: str | None = None
    message: str | None = None
    files: tuple[SavedFile, ...] = ()
    previous: tuple[SavedFile, ...] = ()
    reviewed: tuple[Reviewed | None, ...] = ()
    checked: tuple[Checked, ...] = ()
    urls: tuple[str, ...] = ()
    cost_usd: Decimal | None = None
    request_id: str | None = None
    attempts: int = 0
    submitted_at: datetime | None = None
    saved_at: datetime | None = None
    took_s: float | None = None

    @property
    def redone(self) -> int:
        """Return how many earlier pictures of the job redos have replaced."""
        return self.job.redo - (not self.files) if self.job.redo else 0


class Trace(msgspec.Struct, gc=False):
    """What the records of one fingerprint hold beyond its state."""

    attempts: int = 0
    submitted_at: datetime | None = None
    accepted_at: datetime | None = None
    saved_at: datetime | None = None
    took_s: float | None = None
    urls: tuple[str, ...] = ()
    cost_is_told: bool = False


def follow(trace: Trace, record: JobRecord) -> None:
    """Add a record to the trace of its fingerprint."""
    match record:
        case Submitting():
            trace.attempts += 1
            trace.submitted_at = record.at
            trace.accepted_at = trace.saved_at = None
            trace.took_s, trace.urls, trace.cost_is_told = None, (), False
        case Submitted():
            trace.accepted_at = record.at
        case Succeeded():
            trace.urls = tuple(record.outputs)
            created, finished = read_time(record.created_at), read_time(record.finished_at)
            if created is not None and finished is not None:
                trace.took_s = max(0.0, (finished - created).total_seconds())
            elif trace.accepted_at is not None:
                trace.took_s = max(0.0, (record.at - trace.accepted_at).total_seconds())
        case Saved():
            trace.saved_at = record.at
    if getattr(record, "cost_usd", None) is not None:
        trace.cost_is_told = True


def parts_of(batch: Batch, job: Job) -> tuple[str, list[str], dict[str, Any]]:
    """Split the input into prompt, pictures, and the rest."""
    model = batch.models[job.model]
    inputs = dict(job.input)
    prompt = str(inputs.pop(model.prompt_property, ""))
    sources: list[str] = []
    for name in model.image_properties:
        value = inputs.pop(name, None)
        sources += [value] if isinstance(value, str) else value or []
    return prompt, sources, inputs


def reason_of(known: JobState | None, standing: Standing) -> str | None:
    """Return why there will be no picture; a run that was killed leaves no word of its own."""
    match standing:
        case Standing.DONE | Standing.IN_FLIGHT | Standing.PENDING:
            return None
        case Standing.UNKNOWN:
            usual = "no usable answer"
        case Standing.FAILED | Standing.CANCELLED:
            usual = standing.value
        case _:
            assert_never(standing)
    told = known.reason if known is not None else None
    return usual if told in (None, standing) else told


def files_of(job: Job, known: JobState | None) -> tuple[SavedFile, ...]:
    """Return, among the copies of one purchase, the one under this job's name."""
    if known is None:
        return ()
    for files in (known.files, *known.copies):
        if files and [file.path for file in files] == wanted_paths(job, files):
            return files
    return known.files


def cost_of(known: JobState | None, trace: Trace) -> Decimal | None:
    """Return what a job cost; None if nobody told a cost."""
    if known is None:
        return None
    return known.spent_usd if trace.cost_is_told or known.spent_usd else None
