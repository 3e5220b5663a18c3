"""A batch from end to end: opens what a run or a plan needs, in the right order, and closes it.

Hides the order of opening. What always holds: a manifest, its tables and the plan are checked as a
whole before the first submit; a plan changes nothing on the disk or at the service; whatever
happens after the ledger was opened, it is closed with everything durable that could be made so.
"""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from contextlib import asynccontextmanager
from datetime import datetime, time
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import msgspec

from batch_runner.download import Downloads, is_in_place
from batch_runner.errors import (
    AccessRefusedError,
    BatchRunnerError,
    ExitCode,
    ManifestError,
    ServiceUnavailableError,
    UsageError,
    did_you_mean,
)
from batch_runner.expand import expand
from batch_runner.ledger import (
    JobState,
    Ledger,
    Phase,
    State,
    ledger_path,
    owner_of,
    read_intent,
    replay,
)
from batch_runner.manifest import Limits, Manifest
from batch_runner.model import (
    Model,
    keep_published,
    kept_entry,
    read_published,
    shipped_models,
    shipped_schema,
)
from batch_runner.pacing import Clock, Pacer
from batch_runner.path import superseded_stem
from batch_runner.plan import Action, FileCheck, Planned, Survey, plan, reusable
from batch_runner.records import (
    LEDGER_VERSION,
    Job,
    LedgerHeader,
    Record,
    RunFinished,
    RunStarted,
)
from batch_runner.runner import Listener, Runner, Stop, orphan_job
from batch_runner.schedule import next_time
from batch_runner.service import API_BASE, NO_SUCH_MODEL, Meaning, Service
from batch_runner.verification import Difference
from batch_runner.version import PROGRAM

MODELS_FOLDER = "models"
LOCAL_SERVICE = "local"


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What one execution sets beside the manifest.

    `api_base` is the service's origin; `limit` bounds the submits of this run, `only` is a glob
    over keys, `retry` holds "failed", "unknown" or "all", `max_cost_usd` replaces the budget,
    `until` ends submits at that time of day (in the window's zone, else the machine's), `wait`
    waits for the window to open, and `output_dir` replaces the manifest's folder.
    """

    api_base: str = API_BASE
    token: str | None = None
    limit: int | None = None
    only: str | None = None
    retry: tuple[str, ...] = ()
    max_cost_usd: Decimal | None = None
    until: time | None = None
    wait: bool = False
    output_dir: Path | None = None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """How a batch stands at the end of a run; the six counts after `jobs` add up to it.

    `orphans` counts what was collected for jobs that are no longer in the manifest.
    """

    jobs: int
    done: int
    failed: int
    unknown: int
    in_flight: int
    pending: int
    cancelled: int
    newly_cancelled: int = 0
    submitted: int
    cost_usd: Decimal
    elapsed_s: float
    output_dir: Path
    orphans: int = 0
    orphans_left: int = 0
    stop: Stop | None = None
    error: BatchRunnerError | None = None

    @property
    def exit_code(self) -> ExitCode:
        """Return what the shell is told."""
        if self.error is not None:
            return self.error.exit_code
        if self.stop is not None and self.stop.reason == "interrupted":
            return ExitCode.INTERRUPTED
        if self.stop is not None or self.in_flight or self.pending or self.orphans_left:
            return ExitCode.STOPPED_EARLY
        # What a person cancelled or abandoned before is settled; what ended so now is news.
        lost = self.failed or self.unknown or self.newly_cancelled
        return ExitCode.SOME_FAILED if lost else ExitCode.DONE


class Batch:
    """A manifest with everything that is known about running it."""

    def __init__(self, manifest: Manifest, options: RunOptions) -> None:
        self.manifest = manifest
        self.options = options
        self.output_dir = options.output_dir or manifest.output.dir
        self.model = offline_model(manifest, self.output_dir)
        self.service = Service(options.api_base, options.token)
        self.notes: list[str] = []
        self._trouble: str | None = None

    @property
    def budget_usd(self) -> Decimal | None:
        """Return the budget that holds for this run, or None."""
        override = self.options.max_cost_usd
        return override if override is not None else self.manifest.limits.cost_usd

    @property
    def in_place(self) -> FileCheck:
        """Return the function by which planning asks for files."""
        return partial(is_in_place, self.output_dir)

    def jobs(self) -> Iterator[Job]:
        """Yield the jobs that this run is about; raises ManifestError."""
        jobs = expand(self.manifest, self.model, local_pictures=self.service.is_local)
        only = self.options.only
        return jobs if only is None else (job for job in jobs if fnmatchcase(job.key, only))

    def planned(self, state: State) -> Iterator[Planned]:
        """Yield the plan of every job; raises ManifestError."""
        return plan(
            self.jobs(),
            state,
            self.in_place,
            retry=self.options.retry,
            earlier=partial(read_intent, ledger_path(self.output_dir)),
        )

    def estimate_usd(self, job: Job) -> Decimal | None:
        """Return what a job is expected to cost, or None where no price is known."""
        return self.model.estimate_usd(job.outputs)

    def survey(self, state: State) -> Survey:
        """Plan every job and add it up; raises ManifestError, or UsageError where none is left."""
        survey = Survey()
        for planned in self.planned(state):
            survey.add(planned, self.estimate_usd(planned.job))
        if survey.jobs == 0:
            only = self.options.only
            if only is not None:
                raise UsageError(f"no job's key matches '{only}'", hint="see the keys with plan")
            document = self.manifest.document
            raise ManifestError(
                [document.problem((), "has no jobs", "look at images.where and exclude")]
            )
        if self.budget_usd is not None and survey.cost_usd is None and self._trouble is not None:
            raise ServiceUnavailableError(
                f"there is a budget, and the price could not be asked for ({self._trouble})",
                hint="run it again when the service is back, or write price_usd: into the manifest",
            )
        if self.budget_usd is not None and survey.cost_usd is None:
            raise UsageError(
                f"there is a budget, but the price of {self.model.model_id} is not known",
                hint="write price_usd: (USD per output) into the manifest, or remove the budget",
            )
        return survey

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
            for known in state.jobs.values()
            if known.phase in (Phase.IN_FLIGHT, Phase.SUCCEEDED)
            and known.fingerprint not in survey.waiting
        ]

    def replay(self) -> State:
        """Read what earlier runs did; changes nothing. Raises LedgerDamagedError."""
        state = replay(ledger_path(self.output_dir)).state
        self.check_service(state)
        return state

    def check_service(self, state: State) -> None:
        """Refuse a ledger whose requests live at another service: raises UsageError."""
        here = self._service_name
        if state.header is not None and state.header.service != here:
            raise UsageError(
                f"{ledger_path(self.output_dir)} belongs to another service"
                f" ({state.header.service}, not {here})",
                hint="these pictures are a rehearsal's: move the folder, or set another output.dir"
                if state.header.service == LOCAL_SERVICE
                else "set another output.dir: what was bought there cannot be collected here",
            )

    def header(self, now: datetime) -> LedgerHeader:
        """Return the first line of this batch's ledger."""
        return LedgerHeader(
            version=LEDGER_VERSION, at=now, program=PROGRAM, service=self._service_name
        )

    @property
    def _service_name(self) -> str:
        return LOCAL_SERVICE if self.service.is_local else self.service.origin

    async def learn_model(self, *, keep: bool) -> None:
        """Ask the service for the model's schema and price; without an answer, go on with less.

        Raises AccessRefusedError where the token is refused, and ManifestError where the service
        has no such model.
        """
        verdict, entry = await self.service.model(self.manifest.model)
        if verdict.meaning is Meaning.TOKEN_REFUSED:
            raise AccessRefusedError(
                f"the service refused the token: {verdict.message}",
                hint="set RUNCOMFY_API_TOKEN to a valid token",
            )
        if verdict.code == NO_SUCH_MODEL:
            what = f"the service has no model '{self.manifest.model}'"
            hint = did_you_mean(self.manifest.model, shipped_models())
            raise ManifestError([self.manifest.document.problem(("model",), what, hint)])
        if entry is None:
            self._trouble = f"{verdict.reason}: {verdict.message}"
            self.notes.append(
                f"the service told nothing about {self.manifest.model}"
                f" ({verdict.reason}: {verdict.message}); going on with what is known here"
            )
            return
        try:
            self.model = model_of(self.manifest, entry)
        except ManifestError as error:
            # The service's word about its model is no use: what is known here is better.
            self.notes.append(f"{error.problems[0].what}; going on without it")
            return
        if keep:
            keep_published(self.output_dir / MODELS_FOLDER, self.manifest.model, entry)


def offline_model(manifest: Manifest, output_dir: Path) -> Model:
    """Return what is known of the manifest's model without asking anyone."""
    kept = kept_entry(output_dir / MODELS_FOLDER, manifest.model)
    try:
        return model_of(manifest, kept)
    except ManifestError:
        if kept is None:
            raise
        return model_of(manifest, None)


def model_of(manifest: Manifest, entry: dict[str, object] | None) -> Model:
    """Put together what is known of a model: the service's word first, then what ships, then ours.

    Raises ManifestError where a schema cannot be used.
    """
    published, price_usd, unit = read_published(entry or {})
    candidates = (
        (published, "service"),
        (shipped_schema(manifest.model), "shipped"),
        (manifest.input_schema, "manifest"),
    )
    schema, source = next(((s, name) for s, name in candidates if s is not None), (None, None))
    if manifest.price_usd is not None:
        price_usd, unit = manifest.price_usd, "output"
    try:
        return Model(
            manifest.model,
            schema=schema,
            schema_source=source,
            price_usd=price_usd,
            price_unit=unit,
            prompt_as=manifest.prompt_as,
            images_as=manifest.images_as,
        )
    except ValueError as error:
        what = f"the input schema of {manifest.model} ({source}) is not usable: {error}"
        raise ManifestError([manifest.document.problem(("schema",), what)]) from error


def _ignore(_: object) -> None:
    """Stand in for a listener that nobody passed."""


class Run:
    """One execution of a batch; `stop` and `leave` may be called while `execute` is under way."""

    def __init__(
        self,
        batch: Batch,
        *,
        listener: Listener | None = None,
        notice: Callable[[str], None] | None = None,
        on_survey: Callable[[Survey], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.batch = batch
        self._listener = listener or _ignore
        self._notice = notice or _ignore
        self._on_survey = on_survey or _ignore
        self._clock = clock or Clock()
        self._runner: Runner | None = None
        self._early_stop: Stop | None = None
        self._preparing: asyncio.Future[None] | None = None

    def drain(self, stop: Stop) -> None:
        """Stop submitting, collect what is paid for, end."""
        if self._runner is None:
            self._early_stop = stop
        else:
            self._runner.drain(stop)

    async def cancel_queued(self) -> None:
        """Cancel what the service has not begun yet; what it has is collected."""
        if self._runner is not None:
            await self._runner.cancel_queued()

    async def leave(self, stop: Stop) -> None:
        """End now; the next run collects what is paid for."""
        self._early_stop = self._early_stop or stop
        if self._runner is not None:
            await self._runner.leave(stop)
        elif self._preparing is not None:
            # Nothing was sent yet, and the call that is waited for may take its time.
            self._preparing.cancel()

    async def execute(self) -> Summary:
        """Run the batch to its end; raises BatchRunnerError only before the first submit."""
        began = self._clock.monotonic()
        async with self.opened() as ledger:
            await self._prepare()
            for note in self.batch.notes:
                self._notice(note)
            survey = self.batch.survey(ledger.state)
            self._on_survey(survey)
            await self._warn_of_balance(survey)
            return await self._execute(ledger, survey, began)

    async def _prepare(self) -> None:
        self._preparing = asyncio.ensure_future(self.batch.learn_model(keep=True))
        try:
            await self._preparing
        except asyncio.CancelledError:
            if self._early_stop is None:
                raise
        finally:
            self._preparing = None

    async def _warn_of_balance(self, survey: Survey) -> None:
        """Say before the first submit that the account cannot pay for the last."""
        if not survey.counts[Action.SUBMIT] or survey.cost_usd is None:
            return
        balance_usd = await self.batch.service.balance_usd()
        if balance_usd is not None and balance_usd < survey.cost_usd:
            self._notice(
                f"the account's balance of {balance_usd} USD will not do for the estimated"
                f" {survey.cost_usd} USD; the run stops when it is used up"
            )

    async def mend(self, differences: Iterable[Difference]) -> None:
        """Put files back that are missing or damaged: from a second name, else by downloading."""
        async with self.opened() as ledger, self._downloads() as downloads:
            jobs = {(one.fingerprint, one.stem): one for one in differences}
            planned = [
                _mending(one, ledger.state.jobs[one.fingerprint], self.batch.in_place)
                for one in jobs.values()
            ]
            runner = self._new_runner(ledger, downloads)
            await runner.run(planned, ())
            if runner.error is not None:
                raise runner.error

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Ledger]:
        """Hold the connection to the service and the ledger; both are closed whatever happens."""
        batch = self.batch
        async with batch.service:
            ledger = Ledger.open(batch.output_dir, batch.header(self._clock.now()))
            try:
                batch.check_service(ledger.state)
                if ledger.cut_bytes:
                    self._notice(f"{ledger.path}: cut a torn last line of {ledger.cut_bytes} bytes")
                yield ledger
            finally:
                ledger.close()

    def _downloads(self) -> Downloads:
        batch = self.batch
        return Downloads(
            batch.output_dir,
            hosts=(*batch.manifest.output.hosts, batch.service.host),
            allow_loopback=batch.service.is_local,
        )

    def _new_runner(
        self, ledger: Ledger, downloads: Downloads, orphans: Collection[str] = ()
    ) -> Runner:
        batch, manifest = self.batch, self.batch.manifest
        limits = msgspec.structs.replace(manifest.limits, cost_usd=batch.budget_usd)
        self._runner = Runner(
            service=batch.service,
            downloads=downloads,
            ledger=ledger,
            pacer=self._new_pacer(limits, ledger.state),
            clock=self._clock,
            limits=limits,
            retry=manifest.retry,
            window=manifest.window,
            estimate_usd=batch.estimate_usd,
            in_place=batch.in_place,
            listener=self._listener,
            notice=self._notice,
            submit_limit=batch.options.limit,
            until=self._until(),
            wait_for_window=batch.options.wait,
            orphans=orphans,
        )
        if self._early_stop is not None:
            self._runner.drain(self._early_stop)
        return self._runner

    def _new_pacer(self, limits: Limits, state: State) -> Pacer:
        pacer = Pacer(limits, self.batch.manifest.retry, self._clock)
        now = self._clock.now()
        pacer.remember_submits((now - at).total_seconds() for at in state.submit_times)
        return pacer

    def _until(self) -> datetime | None:
        until, window = self.batch.options.until, self.batch.manifest.window
        if until is None:
            return None
        return next_time(until, window.timezone if window else None, self._clock.now())

    async def _execute(self, ledger: Ledger, survey: Survey, began: float) -> Summary:
        batch, state = self.batch, ledger.state
        spent_before_usd, run_id = state.spent_usd, uuid.uuid4().hex[:12]
        self._record(ledger, self._run_started(run_id, survey))
        orphans = batch.orphans(state, survey)
        async with self._downloads() as downloads:
            runner = self._new_runner(
                ledger, downloads, {planned.job.fingerprint for planned in orphans}
            )
            fresh = (
                planned
                for planned in batch.planned(state)
                if planned.is_twin or planned.job.fingerprint not in survey.waiting
            )
            await runner.run([*orphans, *survey.waiting.values()], fresh)
        if runner.bug is not None:
            raise runner.bug
        summary = self._summary(runner, survey, state, spent_before_usd, began)
        self._record(
            ledger,
            RunFinished(
                at=self._clock.now(),
                run=run_id,
                submitted=summary.submitted,
                saved=runner.tally.saved,
                failed=runner.tally.failed,
                unknown=runner.tally.unknown,
                cost_usd=summary.cost_usd,
                elapsed_s=round(summary.elapsed_s, 3),
                stopped=None if runner.stop is None else runner.stop.reason,
            ),
        )
        return summary

    def _summary(
        self, runner: Runner, survey: Survey, state: State, spent_before: Decimal, began: float
    ) -> Summary:
        tally = runner.tally
        done = survey.counts[Action.SKIP] + tally.saved
        failed = survey.held_failed + tally.failed
        unknown = survey.held_unknown + tally.unknown
        cancelled = survey.held_cancelled + tally.cancelled
        settled = done + failed + unknown + tally.left + cancelled
        return Summary(
            jobs=survey.jobs,
            done=done,
            failed=failed,
            unknown=unknown,
            in_flight=tally.left,
            pending=max(0, survey.jobs - settled),
            cancelled=cancelled,
            newly_cancelled=tally.cancelled,
            submitted=tally.submitted,
            cost_usd=state.spent_usd - spent_before,
            elapsed_s=self._clock.monotonic() - began,
            output_dir=self.batch.output_dir,
            orphans=tally.orphans,
            orphans_left=tally.orphans_left,
            stop=runner.stop,
            error=runner.error,
        )

    def _record(self, ledger: Ledger, record: Record) -> None:
        try:
            ledger.append(record)
        except BatchRunnerError as error:
            # The run's outcome matters more than the note about it; the disk is already reported.
            self._notice(error.message)
        self._listener(record)

    def _run_started(self, run_id: str, survey: Survey) -> RunStarted:
        return RunStarted(
            at=self._clock.now(),
            run=run_id,
            pid=os.getpid(),
            host=socket.gethostname(),
            program=PROGRAM,
            manifest_sha256=self.batch.manifest.sha256,
            jobs=survey.jobs,
            plan={str(action): count for action, count in survey.counts.items() if count},
        )


def _mending(one: Difference, known: JobState, in_place: FileCheck) -> Planned:
    """Plan to put one job's files back; a second name is better than a download that may expire."""
    job = orphan_job(known, one.stem)
    if reusable(known, in_place) is not None:
        return Planned(job, Action.REUSE, f"same as {known.key}", known)
    return Planned(job, Action.DOWNLOAD, "file missing or damaged", known)


class Status(msgspec.Struct, kw_only=True):
    """How a batch stands by its ledger; the six counts after `jobs` are disjoint and add up."""

    jobs: int = 0
    done: int = 0
    failed: int = 0
    unknown: int = 0
    in_flight: int = 0
    pending: int = 0
    cancelled: int = 0
    cost_usd: Decimal | None = None
    reserved_usd: Decimal | None = None
    stopped: str | None = None
    reasons: dict[str, int] = {}


def status(batch: Batch) -> Status:
    """Count the manifest's jobs by how they stand; needs no network, changes nothing."""
    state = batch.replay()
    running = owner_of(batch.output_dir) is not None
    found = Status(cost_usd=state.spent_usd, reserved_usd=state.reserved_usd, reasons={})
    for job in batch.jobs():
        found.jobs += 1
        known = state.job(job.fingerprint)
        column = _column(known.phase if known else None, running=running)
        if known is not None and known.phase is Phase.REFUSED and not known.again:
            column = "failed"
        setattr(found, column, getattr(found, column) + 1)
        if column in ("failed", "unknown") and known is not None:
            reason = (known.reason if column == "failed" else None) or column
            found.reasons[reason] = found.reasons.get(reason, 0) + 1
    if running:
        found.stopped = "running"
    elif state.run_finished is not None:
        found.stopped = state.run_finished.stopped
    elif state.run_started is not None:
        found.stopped = "killed"
    return found


def _column(phase: Phase | None, *, running: bool) -> str:
    match phase:
        case None | Phase.REFUSED | Phase.RELEASED:
            return "pending"
        case Phase.SUBMITTING:
            # While its run lives, the answer is on its way; after that nobody waits for it.
            return "in_flight" if running else "unknown"
        case Phase.IN_FLIGHT | Phase.SUCCEEDED:
            return "in_flight"
        case _:
            return str(phase)
