"""The plan of a batch and its figures: the jobs of the manifest against all that the ledgers know.

Hides which ledger knows what, which figures need the past, and when a ledger alone shows them. What
always holds: planning changes nothing on the disk or at the service; while the basis of a manifest
is the same, so are its jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import cached_property, partial
from hashlib import file_digest, sha256
from typing import Any

from batch_runner import PROGRAM
from batch_runner.errors import ManifestError, Problem, UsageError
from batch_runner.jobs.images import table_of
from batch_runner.jobs.product import Tally
from batch_runner.jobs.selection import Selection
from batch_runner.ledger.job import JobState, Phase
from batch_runner.ledger.reading import read_intent, replay_all
from batch_runner.ledger.state import State
from batch_runner.ledger.verdict import Redo
from batch_runner.manifest.form import Manifest, TableImages
from batch_runner.manifest.validation import show
from batch_runner.models.catalog import kept_entry
from batch_runner.models.model import Model
from batch_runner.records import Job, SavedFile, Submitting, redact_url, utc_now
from batch_runner.run.batch import Batch
from batch_runner.run.budget import committed_usd, count_unpriced, left_usd, unpriced_error
from batch_runner.run.plan import SAME_PICTURES, Action, Planned, orphan_job, plan
from batch_runner.run.survey import Survey
from batch_runner.shards.shard import index_of
from batch_runner.text.address import expires_at
from batch_runner.text.path import superseded_path, superseded_stem
from batch_runner.text.quantity import counted

Shown = Callable[[Iterator[Any]], Iterable[Any]]
"""Passes a stream through, and shows the progress."""

_BASIS = 3
"""Rises when a recorded basis starts to promise something else."""
_EXPIRED_HINT = "export the table again, which gives fresh addresses, and run at once"


class Past:
    """What all ledgers of a batch that are here know, whichever shard this is.

    A changed job has another fingerprint, so what was bought for its key may be in another shard's
    ledger. `own` is the state of this batch's ledger. The others are read when first needed.
    """

    def __init__(self, batch: Batch, own: State) -> None:
        self._ledgers = batch.ledgers
        self._own = own

    @cached_property
    def state(self) -> State:
        """The state of all ledgers together."""
        if any(path.exists() for path in self._ledgers.other_paths()):
            return replay_all(self._ledgers.all_paths())
        return self._own

    @cached_property
    def files(self) -> set[str] | None:
        """The paths of all files that were saved; None if a shard's ledger is not here."""
        if not all(path.exists() for path in self._ledgers.other_paths()):
            return None
        return {
            file.path
            for job in self.state.jobs.each()
            for files in (job.files, *job.copies)
            for file in files
        }

    def before(self, key: str) -> JobState | None:
        """Return the job that a key stood for last."""
        return self.state.last_job(key)

    def is_stray(self, path: str, planned: Planned) -> bool:
        """Tell whether no ledger knows the file at `path`, where a submit would write."""
        if planned.reason != "new":
            # Nearly always it is the picture that the job had before it changed.
            known = self.before(planned.job.key)
            if known is not None and path in {file.path for file in known.files}:
                return False
        # If a shard's ledger is not here, it may know the file.
        return self.files is not None and path not in self.files


def plan_jobs(
    batch: Batch,
    state: State,
    tally: Tally | None = None,
    selection: Selection | None = None,
    past: Past | None = None,
    *,
    redos: Mapping[str, Redo] | None = None,
) -> Iterator[Planned]:
    """Yield the plan of every job; raises ManifestError. `redos` are those of an earlier plan."""
    paths = batch.ledgers.all_paths()

    def earlier(known: JobState) -> Submitting | None:
        return read_intent(paths[index_of(known.fingerprint, len(paths))], known)

    return plan(
        batch.jobs(tally, state, selection, redos),
        state,
        partial(_is_in_place, batch),
        retry=batch.options.retry,
        earlier=earlier,
        before=(past or Past(batch, state)).before,
        same_pictures=SAME_PICTURES in batch.options.accept,
    )


def _is_in_place(batch: Batch, path: str, saved: SavedFile, *, thorough: bool) -> bool:
    # Another shard may have taken the name since. This one's ledger does not show that, but a shard
    # that takes a name sets aside the file that had it.
    if batch.options.shard is not None and not thorough:
        aside = superseded_path(saved.path, saved.sha256)
        thorough = batch.storage.is_in_place(aside, saved, thorough=False)
    return batch.storage.is_in_place(path, saved, thorough=thorough)


def plan_orphans(batch: Batch, state: State, survey: Survey) -> list[Planned]:
    """Plan to collect what was bought for jobs that are no longer in the manifest.

    With --only, the jobs that it leaves out are not orphans: they are left alone.
    """
    if batch.options.only is not None:
        return []
    return [
        Planned(
            orphan_job(known, superseded_stem(known.path, known.fingerprint)),
            Action.COLLECT if known.phase is Phase.IN_FLIGHT else Action.DOWNLOAD,
            "no longer in the manifest",
            known,
        )
        for known in state.jobs.open.values()
        if known.phase in (Phase.IN_FLIGHT, Phase.SUCCEEDED)
        and known.fingerprint not in survey.waiting
    ]


def survey_jobs(
    batch: Batch,
    state: State,
    now: datetime | None = None,
    *,
    buys: bool = True,
    shown: Shown = iter,
) -> Survey:
    """Plan every job and add it up; raises ManifestError, or UsageError if none is left.

    If nothing `buys`, no price has to be known.
    """
    survey, has_looked_back = Survey(batch.redos()), False
    selection, past = Selection(batch.options.only), Past(batch, state)
    problem: Problem | None = None
    began = now or utc_now()
    relying: set[str] = set()
    has_budget = batch.limits.has_budget
    planned: Planned
    for planned in shown(
        plan_jobs(batch, state, survey.tally, selection, past, redos=survey.redos)
    ):
        if planned.action is not Action.SUBMIT:
            survey.add(planned, None)
            continue
        if buys and has_budget and not has_looked_back:
            has_looked_back = True
            _look_back(batch, survey, state, now)
        path = batch.storage.standing(planned.job.path)
        if path is not None and past.is_stray(path, planned):
            survey.strays += 1
            survey.stray = survey.stray or path
        job = planned.job
        problem = problem or _expired(batch.manifest, batch.models[job.model], job, began)
        if has_budget and batch.models[job.model].relies_on_own_price(job.input):
            relying.add(job.model)
        estimate_usd = batch.prices.estimate_usd(job)
        least_usd = batch.prices.least_usd(job) if estimate_usd is None else None
        survey.add(planned, estimate_usd, least_usd)
    if selection.unmatched:
        what = f"no job's key matches --only {', '.join(selection.unmatched[:5])}"
        raise UsageError(what, hint="see the keys with plan --json")
    if selection.chosen == 0:
        raise ManifestError([_why_no_jobs(batch, survey.tally)])
    # The sandbox draws what it cannot fetch, so old tables can still be rehearsed.
    if problem is not None and not batch.service.is_local:
        raise ManifestError([problem])
    survey.tally.notes += [] if problem is None else [str(problem)]
    survey.tally.notes += (
        f"the budget relies on price_usd: the published price of {model_id} does not hold for these"
        " inputs; price_usd must be what one output costs with them, at most"
        for model_id in sorted(relying)
    )
    return survey


def _look_back(batch: Batch, survey: Survey, state: State, now: datetime | None) -> None:
    """Add what earlier purchases cost: more than the known price, if the service reported it."""
    batch.prices.look_back()
    sent = count_unpriced(batch, state)
    if sent is not None:
        raise unpriced_error(batch, sent, f" '{sent.key}' was sent without a price, and")
    survey.committed_usd = committed_usd(batch, state)
    survey.left_usd = left_usd(batch, state, now)


def survey_of_ledger(batch: Batch, state: State, *, shown: Shown = iter) -> Survey | None:
    """Return the survey of a batch whose jobs are all done, without making any of them.

    None if the ledger alone does not show that, or if a file is not in its place.
    """
    jobs = jobs_of_ledger(batch, state)
    if jobs is None or not jobs == state.jobs.finished == len(state.jobs):
        return None
    for files in shown(state.jobs.finished_files()):
        for file in files:
            if not _is_in_place(batch, file.path, file, thorough=False):
                return None
    return Survey.of_finished(jobs)


def _why_no_jobs(batch: Batch, tally: Tally) -> Problem:
    what, hint = "has no jobs", "look at images.where and exclude"
    if tally.left_out:
        what += f": 'where' leaves out {tally.left_out:,} of {counted(tally.products, 'product')}"
    return batch.manifest.document.problem(("images", "where"), what, hint)


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
    parts: list[object] = [_BASIS, PROGRAM, manifest.document.sha256, manifest.name]
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


def _expired(manifest: Manifest, model: Model, job: Job, now: datetime) -> Problem | None:
    """Return the problem of a job to submit, if the address of a picture has expired."""
    for name in model.image_properties:
        value = job.input.get(name, ())
        for url in [value] if isinstance(value, str) else value:
            end = expires_at(url)
            if end is None or end > now:
                continue
            what = f"{show(redact_url(url), 100)} expired on {end:%Y-%m-%d at %H:%M} UTC"
            table = table_of(manifest)
            if table is not None and job.row is not None:
                return Problem(str(table), None, f"row {job.row}: {what}", _EXPIRED_HINT)
            location = ("images", job.image_id or "")
            return manifest.document.problem(location, f"job '{job.key}': {what}", _EXPIRED_HINT)
    return None
