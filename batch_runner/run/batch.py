"""A batch: a manifest with everything that is known about running it, and its plan.

Hides where what is known comes from: the service, the ledger, what ships. What always holds: a
plan changes nothing on the disk or at the service.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, time
from decimal import Decimal
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import msgspec

from batch_runner import PROGRAM
from batch_runner.errors import (
    AccessRefusedError,
    BatchRunnerError,
    ManifestError,
    Problem,
    ServiceUnavailableError,
    UsageError,
    closest,
)
from batch_runner.files.bucket import Buckets, BucketUrl
from batch_runner.files.objects import BucketStorage
from batch_runner.files.storage import FolderStorage, Storage
from batch_runner.jobs.expand import expand
from batch_runner.jobs.images import table_of
from batch_runner.jobs.product import Tally
from batch_runner.jobs.selection import Selection
from batch_runner.ledger.job import JobState, Phase
from batch_runner.ledger.reading import (
    ledger_path,
    read_header,
    read_intent,
    replay,
    replay_all,
    unpriced_intents,
)
from batch_runner.ledger.state import State
from batch_runner.manifest.form import Limits, Manifest, Window
from batch_runner.manifest.validation import show
from batch_runner.models.catalog import (
    KEPT_FOLDER,
    keep_published,
    kept_entry,
    model_of,
    offline_model,
    offline_models,
    shipped_models,
)
from batch_runner.models.model import Model
from batch_runner.pacing.window import night_of
from batch_runner.records import Job, LedgerHeader, SavedFile, Submitting, utc_now
from batch_runner.run.concerns import SAME_PICTURES, Concern, concerns
from batch_runner.run.expiry import Expiry
from batch_runner.run.plan import Action, Planned, PriceShare, Survey, orphan_job, plan, sent_job
from batch_runner.run.prices import Prices
from batch_runner.service.answer import NO_SUCH_MODEL, Meaning
from batch_runner.service.call import API_BASE, Service
from batch_runner.service.web import NO_PROXIES, Proxies
from batch_runner.shards.ledgers import LOCAL_SERVICE, Ledgers
from batch_runner.shards.quota import after_overspending, deal_budget, deal_limits
from batch_runner.shards.shard import Shard, part_of
from batch_runner.text.path import Destinations, superseded_path, superseded_stem

SPOOL_FOLDER = ".spool"
_BASIS_VERSION = 2  # of what a run says by writing a basis down


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What one execution sets beside the manifest.

    `api_base` is the service's origin; `limit` bounds the submits of this run, `only` are globs
    over keys, `retry` holds "failed", "unknown" or "all", `max_cost_usd` replaces the budget,
    `until` ends submits at that time of day (in the window's zone, else the machine's), `wait`
    waits for the window to open, `ignore_window` submits at any hour, `output_dir` replaces the
    manifest's folder, and `shard` is the part of the batch that this run is about.
    `bucket_settings` are environment variables, as object stores' own tools read them, `proxies`
    those that the environment names; in a `rehearsal` no bucket is touched: pictures of this
    machine are not uploaded, and outputs go to the folder. `accept` holds the words of `concerns`
    that a person accepts; with `confirm_cost` the first run that buys without a budget must be
    accepted, too. `schemas_dir` holds the user's own schemas of models that nobody else knows.
    """

    api_base: str = API_BASE
    token: str | None = None
    limit: int | None = None
    only: tuple[str, ...] | None = None
    retry: tuple[str, ...] = ()
    max_cost_usd: Decimal | None = None
    until: time | None = None
    wait: bool = False
    ignore_window: bool = False
    output_dir: Path | None = None
    shard: Shard | None = None
    bucket_settings: Mapping[str, str] = {}
    proxies: Proxies = NO_PROXIES
    rehearsal: bool = False
    accept: tuple[str, ...] = ()
    confirm_cost: bool = False
    schemas_dir: Path | None = None

    def __repr__(self) -> str:
        return f"RunOptions({self.api_base!r}, token {'set' if self.token else 'missing'})"


class Batch:
    """A manifest with everything that is known about running it.

    `show_planning` is given the stream of what is gone through for a plan, and gives it back: for
    whoever wants to show how far that is.
    """

    def __init__(self, manifest: Manifest, options: RunOptions) -> None:
        self.manifest = manifest
        self.options = options
        self.output_dir = options.output_dir or manifest.output.dir
        self.buckets = Buckets(options.bucket_settings)
        self.service = Service(options.api_base, options.token, options.proxies)
        self.notes: list[str] = []
        self.ledgers = self._ledgers()
        self.models = offline_models(manifest, self.ledgers.folder, options.schemas_dir)
        self.storage = self._open_storage()
        if options.rehearsal and (manifest.uploads or manifest.output.bucket):
            self.notes.append("a rehearsal touches no bucket: results go to a folder")
        self.show_planning: Callable[[Iterator[Any]], Iterable[Any]] = iter
        self._troubles: dict[str, str] = {}
        self._chosen = 0
        self._selection: Selection | None = None
        self._all_shards: State | None = None
        self._recorded: set[str] | None = None
        self.prices = Prices(
            self.models,
            self.ledgers.all_records,
            is_own=self.has,
            night_of=lambda moment: night_of(moment, manifest.window),
        )

    @property
    def name(self) -> str:
        """Return what the batch, or the part of it that this is about, is called."""
        shard = self.options.shard
        return self.manifest.name if shard is None else f"{self.manifest.name} {shard}"

    @property
    def window(self) -> Window | None:
        """Return the window that this run keeps to; None if it may submit at any hour."""
        return None if self.options.ignore_window else self.manifest.window

    @property
    def budget_usd(self) -> Decimal | None:
        """Return the budget that holds for this run, or None."""
        override = self.options.max_cost_usd
        return override if override is not None else self.manifest.limits.cost_usd

    @property
    def has_budget(self) -> bool:
        """Tell whether this run's money is limited."""
        return self.budget_usd is not None or self.nightly_usd is not None

    @property
    def nightly_usd(self) -> Decimal | None:
        """Return the budget of each night, or None."""
        # --max-cost replaces whatever the manifest says.
        override = self.options.max_cost_usd
        return None if override is not None else self.manifest.limits.nightly_usd

    def left_usd(self, state: State, now: datetime | None = None) -> Decimal | None:
        """Return what is left of the budget, of tonight's if that is less; None without one."""
        if not self.has_budget:
            return None
        self.prices.look_back()
        left = []
        budget_usd = self.own_budget_usd(state.header)
        if budget_usd is not None:
            committed_usd = state.spent_usd + state.reserved_usd + self.prices.short_usd()
            left.append(budget_usd - committed_usd)
        if self.nightly_usd is not None:
            shard = self.options.shard
            nightly_usd = self.nightly_usd
            if shard is not None:
                nightly_usd = deal_budget(nightly_usd, shard, None)
            left.append(nightly_usd - self.prices.night_usd(now or utc_now()))
        return min(left, default=None)

    def own_budget_usd(self, header: LedgerHeader | None) -> Decimal | None:
        """Return the budget of the part that this is about; `header` is that of its ledger."""
        shard = self.options.shard
        if shard is None or self.budget_usd is None:
            return self.budget_usd
        return deal_budget(self.budget_usd, shard, header)

    def limits(self, header: LedgerHeader) -> Limits:
        """Return what this run may use, by the header of its ledger; raises UsageError."""
        limits = msgspec.structs.replace(
            self.manifest.limits, cost_usd=self.budget_usd, nightly_usd=self.nightly_usd
        )
        shard = self.options.shard
        if shard is None:
            return limits
        dealt = deal_limits(limits, shard, header)
        if limits.nightly_usd is not None and self._was_dealt_tonight(header):
            # What was bought tonight before stands in any of the ledgers: wait for the next night.
            dealt = msgspec.structs.replace(dealt, nightly_usd=Decimal(0))
        if limits.cost_usd is None:
            return dealt
        return msgspec.structs.replace(dealt, cost_usd=self._part_left(limits.cost_usd, shard))

    def _was_dealt_tonight(self, header: LedgerHeader) -> bool:
        """Tell whether tonight's purchases were made before the ledgers were dealt."""
        last, window = header.last_submit_at, self.manifest.window
        return last is not None and night_of(last, window) == night_of(utc_now(), window)

    def _part_left(self, cost_usd: Decimal, shard: Shard) -> Decimal:
        """Return a shard's part of the budget, less what others spent of a larger one before."""
        folders = [
            Shard(index, shard.count).ledger_dir(self.ledgers.folder)
            for index in range(shard.count)
        ]
        parts_usd = [
            deal_budget(cost_usd, Shard(index, shard.count), read_header(ledger_path(folder)))
            for index, folder in enumerate(folders)
        ]
        committed_usd = []
        for folder in folders:
            state = replay(ledger_path(folder)).state
            self.count_unpriced(state, [ledger_path(folder)])
            committed_usd.append(state.spent_usd + state.reserved_usd)
        return after_overspending(parts_usd, committed_usd)[shard.index]

    def _ledgers(self) -> Ledgers:
        output, options = self.manifest.output, self.options
        is_elsewhere = options.rehearsal or options.output_dir is not None
        return Ledgers(
            output.ledger_dir if options.output_dir is None else options.output_dir,
            options.shard,
            service=LOCAL_SERVICE if self.service.is_local else self.service.origin,
            buckets=self.buckets,
            copy=None if is_elsewhere else output.ledger_copy,
            notice=self.notes.append,
        )

    def _open_storage(self) -> Storage:
        bucket = self.manifest.output.bucket
        if bucket is None or self.options.output_dir is not None or self.options.rehearsal:
            return FolderStorage(self.output_dir)
        return BucketStorage(self.buckets, bucket, self.ledgers.own_folder / SPOOL_FOLDER)

    @property
    def bucket(self) -> str | None:
        """Return the URL of the bucket that pictures go to; None where they go to a folder."""
        return str(self.storage) if isinstance(self.storage, BucketStorage) else None

    @property
    def uploads(self) -> BucketUrl | None:
        """Return where this run uploads pictures of this machine to, or None."""
        return None if self.options.rehearsal else self.manifest.uploads

    def jobs(self, tally: Tally | None = None, state: State | None = None) -> Iterator[Job]:
        """Yield the jobs that this run is about; raises ManifestError.

        A job that the ledgers know by one of its aliases has that fingerprint: it is not bought
        again. `state` is what this batch's ledger says; without it the ledgers are read if needed.
        `tally` counts what becomes of a table's rows.
        """
        # A shard's own ledger does not tell what another shard bought by an alias.
        before = state if self.options.shard is None else None
        local = self.service.is_local
        only = self.options.only
        selection = self._selection = None if only is None else Selection(only)
        self._chosen = 0
        # Whatever is left out is expanded all the same: keys and paths are unique in the whole.
        for job in expand(
            self.manifest, self.models, local_pictures=local, uploads=self.uploads, tally=tally
        ):
            if selection is None or job.key in selection:
                self._chosen += 1
                if job.aliases:
                    before = before or self.ledgers.replay_whole()
                    job = _as_known(job, before)  # noqa: PLW2901 - the same job
                if self.has(job.fingerprint):
                    yield job

    def basis(self) -> str | None:
        """Return a digest of what the jobs follow from: while it is the same, so are they.

        That a run wrote it down says also that the ledger knew, by the keys and paths they have
        here, no jobs but these, each once; so of those that are done, the files are where this
        manifest wants them.
        None where only a part of the batch is meant, or the table is a folder. What pictures of
        this machine show is not in it.
        """
        options, table = self.options, table_of(self.manifest)
        if options.only is not None or options.shard is not None:
            return None
        manifest = self.manifest
        parts: list[object] = [_BASIS_VERSION, PROGRAM, manifest.sha256, manifest.name]
        parts += [self.service.is_local, self.uploads]
        if table is not None:
            try:
                if not table.is_file():
                    return None
                with table.open("rb") as file:
                    parts += [file_digest(file, "sha256").hexdigest()]
            except OSError:
                return None
        for model_id in self.models:
            # `schema:` names a file: its content is no part of the manifest's own hash.
            parts += [manifest.notes_on(model_id).input_schema]
            parts += [kept_entry(self.ledgers.folder / KEPT_FOLDER, model_id)]
            if options.schemas_dir is not None:
                parts += [kept_entry(options.schemas_dir, model_id)]
        return sha256(repr(parts).encode()).hexdigest()

    def jobs_of_ledger(self, state: State) -> int | None:
        """Return how many jobs there are, where all that the ledger knows are the manifest's.

        None where that must be seen from the jobs: to make a million of them from their table only
        to count them takes longer than all the rest.
        """
        if state.run_started is None or state.run_started.basis is None:
            return None
        if len(self.ledgers.paths()) != 1 or state.run_started.basis != self.basis():
            return None
        return state.run_started.jobs

    def planned(self, state: State, tally: Tally | None = None) -> Iterator[Planned]:
        """Yield the plan of every job; raises ManifestError."""
        paths = self.ledgers.all_paths()

        def earlier(known: JobState) -> Submitting | None:
            return read_intent(paths[part_of(known.fingerprint, len(paths))], known)

        def before(key: str) -> JobState | None:
            whole = self._whole(state)
            fingerprint = whole.last_fingerprint(key)
            return None if fingerprint is None else whole.job(fingerprint)

        return plan(
            self.jobs(tally, state),
            state,
            self._is_in_place,
            retry=self.options.retry,
            earlier=earlier,
            before=before,
            same_pictures=SAME_PICTURES in self.options.accept,
        )

    def _whole(self, state: State) -> State:
        """Return what all ledgers of the batch know that are here; `state` is that of our own.

        A changed job has another fingerprint, so what was bought for its key may be another
        shard's.
        """
        if not any(path.exists() for path in self.ledgers.other_paths()):
            return state
        if self._all_shards is None:
            self._all_shards = replay_all(self.ledgers.all_paths())
        return self._all_shards

    def _is_in_place(self, path: str, saved: SavedFile, *, thorough: bool) -> bool:
        # Another shard may have taken the name since, which this one's ledger does not tell; but
        # whoever takes a name sets aside what stood there.
        if self.options.shard is not None and not thorough:
            aside = superseded_path(saved.path, saved.sha256)
            thorough = self.storage.is_in_place(aside, saved, thorough=False)
        return self.storage.is_in_place(path, saved, thorough=thorough)

    def estimate_usd(self, job: Job) -> Decimal | None:
        """Return what a job is expected to cost, or None where no price is known."""
        if job.model in self.models:
            return self.prices.estimate_usd(job)
        return self._model(job.model).estimate_usd(job.input)

    def count_unpriced(self, state: State, paths: Iterable[Path] | None = None) -> Job | None:
        """Count what was sent while no price was known at the price that is known now.

        Returns the first of those that still have no price.
        """
        first = None
        for intent, offset_bytes in unpriced_intents(paths or self.ledgers.paths(), state):
            job = sent_job(intent)
            cost_usd = self.estimate_usd(job)
            if cost_usd is not None:
                state.count_at(cost_usd, intent, offset_bytes)
            first = first or (job if cost_usd is None else None)
        return first

    def _model(self, model_id: str) -> Model:
        """Return what is known of a model; the manifest may have had another one before."""
        folder, own_folder = self.ledgers.folder, self.options.schemas_dir
        known = self.models.get(model_id)
        return known or offline_model(self.manifest, model_id, folder, own_folder)

    def concerns(self, survey: Survey, state: State) -> list[Concern]:
        """Return what a person must accept before this run buys anything, and did not yet."""
        is_first = not state.jobs and not self.has_budget
        found = concerns(survey, confirm_cost=self.options.confirm_cost and is_first)
        return [concern for concern in found if concern.word not in self.options.accept]

    def survey(self, state: State, now: datetime | None = None, *, buys: bool = True) -> Survey:
        """Plan every job and add it up; raises ManifestError, or UsageError if none is left.

        If nothing `buys`, no price has to be known.
        """
        survey, has_looked_back = Survey(self.storage.limits()), False
        expiry = Expiry(self.manifest, self.models, now or utc_now())
        planned: Planned
        for planned in self.show_planning(self.planned(state, survey.tally)):
            if planned.action is not Action.SUBMIT:
                survey.add(planned, None)
                continue
            if buys and self.has_budget and not has_looked_back:
                has_looked_back = True
                # Costs that were reported before may be higher than the known price.
                self.prices.look_back()
                sent = self.count_unpriced(state)
                if sent is not None:
                    why = f" '{sent.key}' was sent without a price, and"
                    raise self.unpriced_error(sent, why)
                committed_usd = state.spent_usd + state.reserved_usd
                survey.committed_usd = committed_usd + self.prices.short_usd()
                survey.left_usd = self.left_usd(state, now)
            stray = self._stray(planned, state)
            if stray is not None:
                survey.strays += 1
                survey.stray = survey.stray or stray
            expiry.add(planned.job)
            estimate_usd = self.prices.estimate_usd(planned.job)
            survey.add(planned, estimate_usd, self.prices.least_usd(planned.job))
            if estimate_usd is None or self.prices.has_learned:
                self._count_price(survey, state, planned.job, estimate_usd)
        unmatched = [] if self._selection is None else self._selection.unmatched
        if unmatched:
            more = f" and {len(unmatched) - 1:,} others" if len(unmatched) > 1 else ""
            what = f"no job's key matches --only '{unmatched[0]}'{more}"
            raise UsageError(what, hint="see the keys with plan --json")
        if self._chosen == 0:
            raise ManifestError([self._why_no_jobs(survey.tally)])
        if survey.destinations.too_long is not None:
            raise ManifestError([self._too_long(survey.destinations)])
        # The sandbox draws what it cannot fetch, so that old tables can be rehearsed.
        if expiry.problems and not self.service.is_local:
            raise ManifestError(expiry.problems)
        survey.tally.notes += expiry.notes()
        return survey

    def _stray(self, planned: Planned, state: State) -> str | None:
        """Return the file that stands where a submit would write and that is in no record."""
        path = self.storage.standing(planned.job.path)
        if path is None:
            return None
        if planned.reason != "new":
            # Nearly always it is the picture that the job had before it changed.
            whole = self._whole(state)
            known = whole.job(whole.last_fingerprint(planned.job.key) or "")
            if known is not None and path in {file.path for file in known.files}:
                return None
        if self._recorded is None:
            paths = self.ledgers.other_paths()
            if not all(one.exists() for one in paths):
                return None  # it may be the picture of a shard whose ledger is elsewhere
            self._recorded = {
                file.path
                for job in self._whole(state).jobs.each()
                for files in (job.files, *job.copies)
                for file in files
            }
        return None if path in self._recorded else path

    def _count_price(
        self, survey: Survey, state: State, job: Job, estimate_usd: Decimal | None
    ) -> None:
        """Note what the price of a job is known from."""
        kind = self.prices.kind(job)
        share = survey.prices.get(kind)
        if share is None:
            model = self.models[job.model]
            inputs = model.price_inputs(job.input)
            inputs = {n: inputs[n] for n in inputs if n not in model.image_properties}
            basis = self.prices.basis(job)
            share = survey.prices[kind] = PriceShare(job.model, inputs, basis, estimate_usd)
            if self.has_budget and estimate_usd is None and survey.unaffordable is None:
                most_usd = self.prices.most_usd(job)
                # What is reserved still may turn out to cost less, and to show the price.
                room_usd = (survey.left_usd or Decimal(0)) + state.reserved_usd
                if most_usd is None or most_usd > room_usd:
                    survey.unaffordable = job
        share.jobs += 1
        if estimate_usd is None:
            survey.unpriced[kind] = share.jobs

    def survey_of_ledger(self, state: State) -> Survey | None:
        """Return the survey of a batch whose jobs are all done; none of them is made for it.

        None where the ledger alone does not say that, or a file of theirs is not in its place.
        """
        jobs = self.jobs_of_ledger(state)
        if jobs is None or not jobs == state.jobs.finished == len(state.jobs):
            return None
        for files in self.show_planning(state.jobs.finished_files()):
            for file in files:
                if not self._is_in_place(file.path, file, thorough=False):
                    return None
        return Survey.of_finished(jobs)

    def _too_long(self, destinations: Destinations) -> Problem:
        others = destinations.refused - 1
        what = f"job '{destinations.too_long}' needs {destinations.excess} in {self.storage}"
        if others:
            what += f" (and {others:,} more {'job' if others == 1 else 'jobs'} like it)"
        hint = "shorten output.path, or set output.dir to a folder on another disk"
        return self.manifest.document.problem(("output", "path"), what, hint)

    def _why_no_jobs(self, tally: Tally) -> Problem:
        document = self.manifest.document
        if not tally.products or tally.left_out < tally.products:
            return document.problem((), "has no jobs", "look at images.where and exclude")
        everything = (
            f"all {tally.products:,} products" if tally.products > 1 else "the only product"
        )
        what = f"'where' leaves out {everything}"
        row, cells = tally.first_left_out
        shown = ", ".join(f"'{name}' is {show(value)}" for name, value in cells.items())
        hint = f"in row {row} {shown}" if shown else "look at what it compares"
        return document.problem(("images", "where"), what, hint)

    def unpriced_error(self, job: Job, why: str = "") -> BatchRunnerError:
        """Return why a budget cannot be kept: nobody knows what this job costs."""
        model, trouble = self._model(job.model), self._troubles.get(job.model)
        if job.model not in self.models:
            return UsageError(
                f"there is a budget, but{why} the price of {job.model} is not known",
                hint="settle it with batch-runner resolve MANIFEST; or put the model back into the"
                " manifest, with its price_usd; or remove the budget",
            )
        if model.price_usd is None and self.options.token is None:
            return UsageError(
                "there is a budget, and the price is not known: no token is set",
                hint="set RUNCOMFY_API_TOKEN; or write price_usd: into the manifest",
            )
        if model.price_usd is None and trouble is not None:
            return ServiceUnavailableError(
                f"there is a budget, and the price could not be asked for ({trouble})",
                hint="run it again when the service is back, or write price_usd: into the manifest",
            )
        where = "into the manifest"
        if len(self.models) > 1:
            where = f"under models: {job.model}: in the manifest"
        return self.prices.unpriced_error(job, where, why)

    def orphans(self, state: State, survey: Survey) -> list[Planned]:
        """Plan to collect what was bought for jobs that are no longer in the manifest.

        With --only, the jobs that it leaves out are not orphans: they are left alone.
        """
        if self.options.only is not None:
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

    def parts(self) -> list[Batch]:
        """Return a batch for each ledger, which may be written to through it: itself, or shards."""
        folders = self.ledgers.folders()
        if folders == [self.ledgers.own_folder]:
            return [self]
        return [
            Batch(
                self.manifest,
                msgspec.structs.replace(self.options, shard=Shard(index, len(folders))),
            )
            for index, folder in enumerate(folders)
            if ledger_path(folder).exists()
        ]

    def has(self, fingerprint: str) -> bool:
        """Tell whether a job is, or would be, in the ledger that this batch may write to."""
        shard = self.options.shard
        return shard is None or shard.holds(fingerprint)

    def replay(self) -> State:
        """Read what earlier runs did; changes nothing. Raises LedgerDamagedError, UsageError."""
        return self.ledgers.replay()

    def pull(self, notice: Callable[[str], None]) -> None:
        """Bring the ledgers here up to their copies: for reading what other machines did.

        Raises UsageError where there are no copies, InputMissingError where there are none yet,
        LedgerDamagedError, StorageError, AccessRefusedError.
        """
        root = self.manifest.output.ledger_copy
        if root is None:
            raise UsageError(
                f"{self.manifest.name} has no copy of its ledger",
                hint="output.ledger_copy names where one is kept",
            )
        self.ledgers.pull(root, notice)

    async def learn_models(self, *, keep: bool) -> None:
        """Ask the service for the models' schemas and prices; without an answer, go on with less.

        Raises AccessRefusedError where the token is refused, and ManifestError where the service
        has no such model.
        """
        problems, places = [], self.manifest.model_locations
        for model_id, location in places.items():
            verdict, entry = await self.service.model(model_id)
            if verdict.meaning is Meaning.TOKEN_REFUSED:
                raise AccessRefusedError(
                    f"the service refused the token: {verdict.message}",
                    hint="set RUNCOMFY_API_TOKEN to a valid token",
                )
            if verdict.code == NO_SUCH_MODEL:
                what = f"the service has no model '{model_id}'"
                hint = self._which_models(model_id)
                problems.append(self.manifest.document.problem(location, what, hint))
            elif entry is None:
                trouble = self._troubles[model_id] = f"{verdict.reason}: {verdict.message}"
                self.notes.append(
                    f"the service told nothing about {model_id}"
                    f" ({trouble}); going on with what is known here"
                )
                if verdict.status is None:
                    # Nobody answers: to wait for each further model could take a minute each.
                    unasked = list(places)[list(places).index(model_id) + 1 :]
                    self._troubles |= dict.fromkeys(unasked, trouble)
                    break
            else:
                self._believe(model_id, entry, keep=keep)
        if problems:
            raise ManifestError(problems)

    def _which_models(self, model_id: str) -> str:
        """Say where the service's models can be found."""
        match = closest(model_id, shipped_models())
        if match is not None:
            return f"did you mean '{match}'?"
        if self.options.rehearsal:
            return "the sandbox serves it once its schema is here: batch-runner models --add"
        return "batch-runner models lists those that there are"

    def _believe(self, model_id: str, entry: dict[str, Any], *, keep: bool) -> None:
        try:
            self.models[model_id] = model_of(
                self.manifest, model_id, entry, self.options.schemas_dir
            )
        except ManifestError as error:
            # The service's word about its model is no use: what is known here is better.
            self.notes.append(f"{error.problems[0].what}; going on without it")
            return
        if keep:
            keep_published(self.ledgers.folder / KEPT_FOLDER, model_id, entry)


def _as_known(job: Job, state: State) -> Job:
    """Return the job under the fingerprint by which ledgers know it."""
    for number in (job.fingerprint, *job.aliases):
        if state.job(number) is not None:
            return msgspec.structs.replace(job, fingerprint=number)
    return job
