"""One execution of a batch: opens what it needs, in the right order, and closes it.

Hides the order of opening. What always holds: a manifest, its tables and the plan are checked as a
whole before the first submit; whatever happens after the ledger was opened, it is closed with
everything durable that could be made so.
"""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from batch_runner import PROGRAM
from batch_runner.clock import Clock
from batch_runner.errors import AccessRefusedError, BatchRunnerError, ExitCode, UsageError
from batch_runner.files.disk import require_utf8_names, storage_error, try_folder
from batch_runner.files.download import Downloads
from batch_runner.files.upload import Uploads
from batch_runner.files.verification import Difference
from batch_runner.ledger.drain import forget_request, is_asked_to_drain
from batch_runner.ledger.file import Ledger
from batch_runner.ledger.job import JobState, Standing, standing_of
from batch_runner.ledger.state import State
from batch_runner.manifest.form import Limits
from batch_runner.pacing.pacer import Pacer
from batch_runner.pacing.window import next_time
from batch_runner.records import Record, RunFinished, RunStarted, usd
from batch_runner.run.basis import basis_of
from batch_runner.run.batch import Batch
from batch_runner.run.budget import own_limits, unpriced_error
from batch_runner.run.concerns import Concern, concerns
from batch_runner.run.course import Course
from batch_runner.run.learning import learn_models
from batch_runner.run.plan import Action, FileCheck, Planned, orphan_job, reusable
from batch_runner.run.planning import (
    Shown,
    plan_jobs,
    plan_orphans,
    survey_jobs,
    survey_of_ledger,
)
from batch_runner.run.pool import Runner
from batch_runner.run.survey import Survey
from batch_runner.run.terms import Listener, Resources, Stop, Terms
from batch_runner.shards.quota import recent_submits

_T = TypeVar("_T")
_LOOK_FOR_REQUEST_S = 0.5


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """How a batch stands by its ledger at the end of a run, as `status` counts it.

    The six counts after `jobs` add up to it. `unsaved` counts those of the done ones that have no
    file in place, `newly_cancelled` those of the cancelled ones that this run cancelled,
    `unknown_beyond` the unknown jobs that are no longer in the manifest. `cost_usd` is what this
    run bought, `spent_usd` what all runs of this ledger did. `orphans` counts what was collected
    for jobs that are no longer in the manifest.
    """

    jobs: int
    done: int
    failed: int
    unknown: int
    in_flight: int
    pending: int
    cancelled: int
    newly_cancelled: int = 0
    unsaved: int = 0
    unknown_beyond: int = 0
    submitted: int
    cost_usd: Decimal
    spent_usd: Decimal | None = None
    elapsed_s: float
    output_dir: Path
    orphans: int = 0
    orphans_left: int = 0
    stop: Stop | None = None
    error: BatchRunnerError | None = None
    needed_usd: Decimal | None = None
    bucket: str | None = None

    @property
    def place(self) -> str:
        """Return where the pictures are: the folder, or the bucket's URL."""
        return self.bucket or str(self.output_dir.resolve())

    @property
    def exit_code(self) -> ExitCode:
        """Return what the shell is told."""
        if self.error is not None:
            return self.error.exit_code
        if self.stop is not None and self.stop.reason == "interrupted":
            return ExitCode.INTERRUPTED
        left = self.in_flight or self.pending or self.unsaved or self.orphans_left
        if self.stop is not None or left:
            return ExitCode.STOPPED_EARLY
        # What a person cancelled or abandoned before is settled; what ended so now is news.
        lost = self.failed or self.unknown or self.newly_cancelled
        return ExitCode.SOME_FAILED if lost else ExitCode.DONE


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
        on_upload: Callable[[int], None] | None = None,
        ask: Callable[[Concern], Coroutine[Any, Any, bool]] | None = None,
        shown: Shown = iter,
        clock: Clock | None = None,
    ) -> None:
        self.batch = batch
        self._listener = listener or _ignore
        self._notice = notice or _ignore
        self._on_survey = on_survey or _ignore
        self._on_upload = on_upload or _ignore
        self._ask = ask
        self._shown = shown
        self._clock = clock or Clock()
        self._runner: Runner | None = None
        self._early_stop: Stop | None = None
        self._is_leaving = False
        self._held: BatchRunnerError | None = None
        self._limits: Limits | None = None
        self._basis: str | None = None
        self._preparing: asyncio.Future[Any] | None = None

    def drain(self, stop: Stop) -> None:
        """Stop submitting, collect what is paid for, end."""
        if self._runner is None:
            self._early_stop = self._early_stop or stop
            if self._preparing is not None:
                self._preparing.cancel()
        else:
            self._runner.course.drain(stop)

    async def cancel_queued(self) -> None:
        """Cancel what the service has not begun yet; what it has is collected."""
        if self._runner is not None:
            await self._runner.cancel_queued()

    async def leave(self, stop: Stop) -> None:
        """End now; the next run collects what is paid for."""
        self._is_leaving = True
        self.drain(stop)
        if self._runner is not None:
            await self._runner.leave(stop)

    async def execute(self) -> Summary:
        """Run the batch to its end; raises BatchRunnerError only before the first submit."""
        began = self._clock.monotonic()
        async with self.opened() as ledger:
            # Ask the service for nothing if the limits can't be kept.
            self._limits = own_limits(self.batch, ledger.header)
            await self._unless_stopped(learn_models(self.batch, keep=True))
            # Once more, because only now the prices are known of what was sent without one.
            self._limits = own_limits(self.batch, ledger.header)
            for note in self.batch.notes:
                self._notice(note)
            basis = basis_of(self.batch)
            survey = survey_of_ledger(self.batch, ledger.state, shown=self._shown) or survey_jobs(
                self.batch,
                ledger.state,
                self._clock.now(),
                buys=not self._is_stopped(),
                shown=self._shown,
            )
            self._basis = self._lasting(basis, survey, ledger.state)
            for note in (*survey.tally.notes, *survey.files.notes()):
                self._notice(note)
            submits = survey.counts[Action.SUBMIT]
            if survey.left_usd is not None and survey.cost_usd and survey.covered < submits:
                self._notice(f"the budget covers {survey.covered:,} of {submits:,} jobs to buy")
            self._held = await self._why_not_buy(survey, ledger.state)
            self._on_survey(survey)
            if self._held is not None and not (
                survey.waiting or plan_orphans(self.batch, ledger.state, survey)
            ):
                raise self._held
            if survey.counts[Action.SUBMIT] and not self._is_stopped():
                for note in await asyncio.to_thread(self._try_disks, ledger, survey):
                    self._notice(note)
            return await self._execute(ledger, survey, began)

    def _try_disks(self, ledger: Ledger, survey: Survey) -> list[str]:
        """Try to keep files before anything is bought; return what cannot be promised here."""
        require_utf8_names()
        storage, folder = self.batch.storage, ledger.path.parent
        notes = []
        if not storage.prepare(survey.destinations.stems):
            notes.append(
                f"{storage}: this file system cannot sync files: a power failure may damage the"
                " newest pictures (batch-runner verify finds them)"
            )
        try:
            if not try_folder(folder):
                notes.append(
                    f"{folder}: this file system cannot sync files: a power failure may lose the"
                    " newest lines of the ledger, and what they tell could be bought again (set"
                    " output.ledger to a folder on a local disk)"
                )
        except OSError as error:
            raise storage_error(folder, error) from error
        return notes

    def _is_stopped(self) -> bool:
        return self._early_stop is not None

    async def _unless_stopped(self, answer: Coroutine[Any, Any, _T]) -> _T | None:
        """Wait for an answer before the first submit; None if the run is stopped meanwhile.

        A run that is to buy nothing needs no price, no balance and no word of a person.
        """
        if self._is_stopped():
            answer.close()
            return None
        preparing = asyncio.ensure_future(answer)
        self._preparing = preparing
        try:
            return await preparing
        except asyncio.CancelledError:
            if not self._is_stopped():
                raise
            return None
        finally:
            self._preparing = None

    async def _why_not_buy(self, survey: Survey, state: State) -> BatchRunnerError | None:
        """Return what forbids to buy anything; what is paid for is collected all the same."""
        if self._is_stopped():
            return None
        if survey.unaffordable is not None:
            return unpriced_error(self.batch, survey.unaffordable)
        for concern in concerns(self.batch, survey, state):
            if self._ask is None or not await self._unless_stopped(self._ask(concern)):
                # Stopped by a signal while it asked: that is how the run ends.
                return (
                    None if self._is_stopped() else UsageError(concern.message, hint=concern.hint)
                )
        return await self._look_at_balance(survey)

    async def _look_at_balance(self, survey: Survey) -> BatchRunnerError | None:
        """Report before the first submit what the balance does not cover; return why to buy none.

        A service that does not tell is no reason.
        """
        if not survey.counts[Action.SUBMIT]:
            return None
        balance_usd = await self._unless_stopped(self.batch.service.balance_usd())
        if balance_usd is None:
            return None
        if balance_usd <= 0:
            return AccessRefusedError(
                f"the account has no balance: {usd(balance_usd)}",
                hint="top it up, then run the same command again: nothing is lost",
            )
        if survey.least_usd is not None and balance_usd < survey.least_usd:
            self._notice(
                f"the balance of {usd(balance_usd)} is less than the estimated"
                f" {usd(survey.least_usd)}; the run will stop when it runs out"
            )
        return None

    async def mend(self, differences: Iterable[Difference]) -> None:
        """Put files back that are missing or damaged: from a second name, else by downloading."""
        async with self.opened() as ledger, self._downloads() as downloads:
            jobs = {(one.fingerprint, one.stem): one for one in differences}
            planned, seen, in_place = [], set[str](), self.batch.storage.is_in_place
            for one in jobs.values():
                known, is_twin = ledger.state.jobs[one.fingerprint], one.fingerprint in seen
                planned.append(_mending(one, known, in_place, is_twin=is_twin))
                seen.add(one.fingerprint)
            runner = self._new_runner(ledger, downloads)
            await runner.run(planned, ())
            if runner.course.error is not None:
                raise runner.course.error

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Ledger]:
        """Hold the connection to the service and the ledger; both are closed whatever happens."""
        batch = self.batch
        async with batch.service:
            with batch.ledgers.opened(self._clock.now()) as ledger:
                if ledger.cut_bytes:
                    self._notice(f"{ledger.path}: cut a torn last line of {ledger.cut_bytes} bytes")
                yield ledger

    def _downloads(self) -> Downloads:
        batch = self.batch
        return Downloads(
            batch.storage,
            hosts=(*batch.manifest.output.hosts, batch.service.host),
            allow_loopback=batch.service.is_local,
            proxies=batch.options.proxies,
        )

    @asynccontextmanager
    async def _uploads(self) -> AsyncIterator[Uploads | None]:
        if self.batch.options.rehearsal:
            yield None
            return
        uploads = Uploads(
            self.batch.buckets,
            on_upload=self._on_upload,
            notice=self._notice,
            clock=self._clock,
            service_is_here=self.batch.service.is_local,
        )
        try:
            yield uploads
        finally:
            if uploads.under_way:
                # A call to a store cannot be broken off; and what has come so far is not lost.
                self._notice(f"{uploads.under_way} uploads under way are waited for")
            await asyncio.to_thread(uploads.close)

    def _new_runner(
        self,
        ledger: Ledger,
        downloads: Downloads,
        orphans: Collection[str] = (),
        uploads: Uploads | None = None,
        survey: Survey | None = None,
    ) -> Runner:
        batch, manifest = self.batch, self.batch.manifest
        limits = self._limits or own_limits(batch, ledger.header)
        self._runner = Runner(
            Resources(
                service=batch.service,
                downloads=downloads,
                storage=batch.storage,
                uploads=uploads,
                ledger=ledger,
                pacer=self._new_pacer(limits, ledger),
                clock=self._clock,
                prices=batch.prices,
                other_ledgers=tuple(batch.ledgers.other_paths()),
            ),
            Terms(
                limits=limits,
                retry=manifest.retry,
                window=batch.window,
                submit_limit=batch.options.limit,
                until=self._until(),
                wait_for_window=batch.options.wait,
            ),
            unpriced=partial(unpriced_error, batch),
            listener=self._listener,
            notice=self._notice,
            orphans=orphans,
            survey=survey,
        )
        if self._held is not None:
            self._runner.course.end_submits(self._held)
        if self._early_stop is not None:
            course = self._runner.course
            (course.leave if self._is_leaving else course.drain)(self._early_stop)
        return self._runner

    def _new_pacer(self, limits: Limits, ledger: Ledger) -> Pacer:
        pacer = Pacer(limits, self.batch.manifest.retry, self._clock)
        now = self._clock.now()
        recent = recent_submits(ledger.state.submit_times, ledger.header, limits.submits.count)
        pacer.remember_submits((now - at).total_seconds() for at in recent)
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
        orphans = plan_orphans(batch, state, survey)
        async with self._downloads() as downloads, self._uploads() as uploads:
            runner = self._new_runner(
                ledger, downloads, {planned.job.fingerprint for planned in orphans}, uploads, survey
            )
            fresh = self._fresh(state, survey)
            with self._obeying_requests(ledger.path.parent, run_id):
                await runner.run([*orphans, *survey.waiting.values()], fresh)
        course = runner.course
        if course.bug is not None:
            raise course.bug
        summary = self._summary(course, survey, state, spent_before_usd, began)
        self._record(
            ledger,
            RunFinished(
                at=self._clock.now(),
                run=run_id,
                submitted=summary.submitted,
                saved=course.tally.saved,
                failed=course.tally.failed,
                unknown=course.tally.unknown,
                cost_usd=summary.cost_usd,
                elapsed_s=round(summary.elapsed_s, 3),
                stopped=None if course.stop is None else course.stop.reason,
            ),
        )
        return summary

    def _fresh(self, state: State, survey: Survey) -> Iterable[Planned]:
        """Return whatever is not waiting to be collected or downloaded, if there is such a job.

        What the survey could not keep is planned again, as a stream.
        """
        if not (survey.counts[Action.SUBMIT] or survey.counts[Action.REUSE]):
            return ()
        if survey.fresh is not None:
            return survey.fresh
        return (
            planned
            for planned in plan_jobs(self.batch, state)
            if planned.is_twin or planned.job.fingerprint not in survey.waiting
        )

    @contextmanager
    def _obeying_requests(self, folder: Path, run_id: str) -> Iterator[None]:
        """Drain when another process asks for it. By real time: that is what the other one has."""
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle | None = None

        def look() -> None:
            nonlocal timer
            if is_asked_to_drain(folder, run_id):
                self._notice(
                    "asked to stop: nothing more is submitted, what is paid for is collected"
                )
                self.drain(Stop("drained", "another process asked this run to stop"))
            else:
                timer = loop.call_later(_LOOK_FOR_REQUEST_S, look)

        look()
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()
            forget_request(folder, run_id)

    def _summary(
        self, course: Course, survey: Survey, state: State, spent_before: Decimal, began: float
    ) -> Summary:
        tally, is_part = course.tally, self.batch.options.only is not None
        return Summary(
            **msgspec.structs.asdict(survey.standings),
            newly_cancelled=tally.cancelled,
            unsaved=tally.unsaved,
            unknown_beyond=0 if is_part else _unknown_beyond(state, survey),
            submitted=tally.submitted,
            cost_usd=state.spent_usd - spent_before,
            spent_usd=state.spent_usd,
            elapsed_s=self._clock.monotonic() - began,
            output_dir=self.batch.output_dir,
            orphans=tally.orphans,
            orphans_left=tally.orphans_left,
            stop=course.stop,
            error=course.error,
            needed_usd=self._needed_usd(survey),
            bucket=self.batch.bucket,
        )

    def _needed_usd(self, survey: Survey) -> Decimal | None:
        """Return the budget that covers all jobs, by the prices that are known now."""
        if self.batch.options.shard is not None:
            return None  # the others' needs are not known here
        prices_usd = [self.batch.prices.of_kind(kind) for kind in survey.unpriced]
        needed_usd = survey.committed_usd + survey.priced_usd
        for price_usd, jobs in zip(prices_usd, survey.unpriced.values(), strict=True):
            if price_usd is None:
                return None
            needed_usd += price_usd * jobs
        return needed_usd

    def _record(self, ledger: Ledger, record: Record) -> None:
        try:
            ledger.append(record)
        except BatchRunnerError as error:
            # The run's outcome matters more than the note about it; the disk is already reported.
            self._notice(error.message)
        self._listener(record)

    def _lasting(self, basis: str | None, survey: Survey, state: State) -> str | None:
        """Return the basis of the survey, where the jobs can be counted by it from now on."""
        if survey.twins or survey.moved or survey.with_files or survey.known != len(state.jobs):
            return None
        return basis if basis == basis_of(self.batch) else None

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
            basis=self._basis,
        )


def _mending(one: Difference, known: JobState, in_place: FileCheck, *, is_twin: bool) -> Planned:
    """Plan to put one job's files back; a second name is better than a download that may expire."""
    job = orphan_job(known, one.stem)
    if is_twin or reusable(known, in_place) is not None:
        return Planned(job, Action.REUSE, f"same as {known.key}", known)
    return Planned(job, Action.DOWNLOAD, "file missing or damaged", known)


def _unknown_beyond(state: State, survey: Survey) -> int:
    """Return how many jobs are unknown and no longer in the manifest."""
    twins, inside = survey.twins, survey.standings.unknown
    unknown = 0
    for known in state.jobs.open.values():
        if standing_of(known, running=False) is Standing.UNKNOWN:
            unknown += 1
            inside -= twins.get(known.fingerprint, 0)
    return unknown - inside
