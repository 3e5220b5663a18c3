"""Whether a ledger already shows which jobs a manifest makes, so that they need not be made.

Hides what jobs depend on. What always holds: while the basis is the same, so are the jobs. Not
promised: anything about the content of pictures on this machine; the basis leaves it out.
"""

from __future__ import annotations

from hashlib import file_digest, sha256

from batch_runner import PROGRAM
from batch_runner.jobs.images import table_of
from batch_runner.ledger.state import State
from batch_runner.manifest.form import TableImages
from batch_runner.models.catalog import kept_entry
from batch_runner.run.batch import Batch
from batch_runner.run.survey import Survey

_VERSION = 3
"""Rises when a recorded basis starts to promise something else."""


def basis_of(batch: Batch) -> str | None:
    """Return a digest of everything that the jobs depend on.

    A run records it only if its ledger knows each of these jobs once, under the same key and paths,
    and knows no other jobs. None for a part of the batch, and if the table is a folder.
    """
    options, manifest, table = batch.options, batch.manifest, table_of(batch.manifest)
    if options.only is not None or options.shard is not None:
        return None
    if isinstance(manifest.images, TableImages) and manifest.images.is_batch:
        return None  # its rows follow from another ledger
    parts: list[object] = [_VERSION, PROGRAM, manifest.sha256, manifest.name]
    parts += [batch.service.is_local, batch.uploads]
    if table is not None:
        try:
            if not table.is_file():
                return None
            with table.open("rb") as file:
                parts += [file_digest(file, "sha256").hexdigest()]
        except OSError:
            return None
    parts += sorted(redo.fingerprint for redo in batch.redos().values())
    for model_id in batch.models:
        # `schema:` names a file; the manifest's own hash does not cover its content.
        parts += [manifest.notes_on(model_id).input_schema]
        parts += [kept_entry(batch.ledgers.folder, model_id)]
    return sha256(repr(parts).encode()).hexdigest()


def jobs_of_ledger(batch: Batch, state: State) -> int | None:
    """Return how many jobs the manifest makes, if the ledger shows it; else None.

    Making a million jobs from their table only to count them takes longer than all the rest.
    """
    started = state.run_started
    if started is None or started.basis is None:
        return None
    if len(batch.ledgers.paths()) != 1 or started.basis != basis_of(batch):
        return None
    return started.jobs


def lasting_basis(batch: Batch, before: str | None, survey: Survey, state: State) -> str | None:
    """Return the basis that a survey started from, if later runs can count the jobs by it."""
    if survey.twins or survey.moved or survey.with_files or survey.known != len(state.jobs):
        return None
    # The table may have changed while it was read.
    return before if before == basis_of(batch) else None
