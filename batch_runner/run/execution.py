"""One execution of a batch: prepared, asked for consent, run, and summed up.

Hides the order. What always holds: a manifest, its tables and the plan are checked as a whole, a
person has consented, the disks were tried and the balance was looked at before the first submit.
"""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from batch_runner import PROGRAM
from batch_runner.clock import Clock
from batch_runner.errors import BatchRunnerError, UsageError
from batch_runner.ledger.drain import forget_request, is_asked_to_drain
from batch_runner.ledger.file import Ledger
from batch_runner.ledger.state import State
from batch_runner.manifest.form import Limits
from batch_runner.records import Record, RunFinished, RunStarted, usd
from batch_runner.run.basis import basis_of, lasting_basis
from batch_runner.run.batch import Batch
from batch_runner.run.budget import own_limits, unpriced_error
from batch_runner.run.concerns import Concern, concerns
from batch_runner.run.control import Tally, no_balance_error
from batch_runner.run.learning import learn_models
from batch_runner.run.plan import Action, Planned
from batch_runner.run.planning import (
    Shown,
    plan_jobs,
    plan_orphans,
    survey_jobs,
    survey_of_ledger,
)
from batch_runner.run.pool import Runner
from batch_runner.run.setup import (
    Notice,
    ignore,
    new_runner,
    open_downloads,
    open_ledger,
    open_uploads,
    try_disks,
)
from batch_runner.run.stop import Stop
from batch_runner.run.summary import Summary, summary_of
from batch_runner.run.survey import Survey

_T = TypeVar("_T")
_LOOK_FOR_REQUEST_S = 0.5


class Run:
    """One execution of a batch. `end` may be called at any time, also before `execute`.

    - `listener` gets every record; `notice` gets sentences for people.
    - `on_survey` gets the plan in figures; `shown` passes the stream of planning through.
    - `on_upload` gets the bytes of each upload.
    - `ask` gets each concern, and returns whether a person accepts it; without it, none is.
    """

    def __init__(
        self,
        batch: Batch,
        *,
        listener: Callable[[Record], None] | None = None,
        notice: Notice | None = None,
        on_survey: Callable[[Survey], None] | None = None,
        on_upload: Callable[[int], None] | None = None,
        ask: Callable[[Concern], Coroutine[Any, Any, bool]] | None = None,
        shown: Shown = iter,
        clock: Clock | None = None,
    ) -> None:
        self.batch = batch
        self._listener = listener or ignore
        self._notice = notice or ignore
        self._on_survey = on_survey or ignore
        self._on_upload = on_upload or ignore
        self._ask = ask
        self._shown = shown
        self._clock = clock or Clock()
        self._runner: Runner | None = None
        self._preparing: asyncio.Future[Any] | None = None
        self._early: list[Stop] = []
        """What ended the run before it had a runner."""

    def end(self, stop: Stop) -> None:
        """Stop submitting. What is paid for is collected, or left to the next run if `at_once`."""
        if self._runner is not None:
            self._runner.end(stop)
            return
        self._early.append(stop)
        if self._preparing is not None:
            self._preparing.cancel()

    async def execute(self) -> Summary:
        """Run the batch to its end; raises BatchRunnerError only before the first submit."""
        began, batch = self._clock.monotonic(), self.batch
        async with open_ledger(batch, self._notice, self._clock) as ledger:
            # Ask the service for nothing if the limits can't be kept.
            own_limits(batch, ledger.header)
            await self._unless_ended(learn_models(batch, keep=True))
            # Once more: purchases without a price can be counted only now.
            limits = own_limits(batch, ledger.header)
            self._report(batch.notes)
            basis = basis_of(batch)
            survey = self._survey(ledger.state)
            basis = lasting_basis(batch, basis, survey, ledger.state)
            held = await self._why_not_buy(survey, ledger.state)
            self._on_survey(survey)
            orphans = plan_orphans(batch, ledger.state, survey)
            if held is not None:
                # What is paid for is collected all the same.
                if not (survey.waiting or orphans):
                    raise held
                self._early.append(Stop.of_error(held))
            if survey.counts[Action.SUBMIT] and not self._early:
                stems = survey.destinations.stems
                self._report(await asyncio.to_thread(try_disks, batch, ledger, stems))
            return await self._execute(ledger, limits, survey, orphans, basis=basis, began=began)

    def _survey(self, state: State) -> Survey:
        """Plan all jobs, and report what a person should know about the plan."""
        survey = survey_of_ledger(self.batch, state, shown=self._shown) or survey_jobs(
            self.batch, state, self._clock.now(), buys=not self._early, shown=self._shown
        )
        self._report(survey.tally.notes)
        submits = survey.counts[Action.SUBMIT]
        if survey.left_usd is not None and survey.cost_usd and survey.covered < submits:
            self._notice(f"the budget covers {survey.covered:,} of {submits:,} jobs to buy")
        return survey

    def _report(self, notes: Iterable[str]) -> None:
        for note in notes:
            self._notice(note)

    async def _unless_ended(self, answer: Coroutine[Any, Any, _T]) -> _T | None:
        """Wait for an answer before the first submit; None if the run is ended meanwhile.

        A run that buys nothing needs no price, no balance and no consent.
        """
        if self._early:
            answer.close()
            return None
        preparing = asyncio.ensure_future(answer)
        self._preparing = preparing
        try:
            return await preparing
        except asyncio.CancelledError:
            if not self._early:
                raise
            return None
        finally:
            self._preparing = None

    async def _why_not_buy(self, survey: Survey, state: State) -> BatchRunnerError | None:
        """Return the error that forbids to buy anything, if there is one."""
        if self._early:
            return None
        if survey.unpriced is not None and self.batch.limits.has_budget:
            return unpriced_error(self.batch, survey.unpriced)
        for concern in concerns(self.batch, survey, state):
            if self._ask is None or not await self._unless_ended(self._ask(concern)):
                # A signal that comes while the question stands ends the run like any other.
                return None if self._early else UsageError(concern.message, hint=concern.hint)
        return await self._look_at_balance(survey)

    async def _look_at_balance(self, survey: Survey) -> BatchRunnerError | None:
        """Report what the balance does not cover; return an error if there is no balance at all.

        If the service does not tell the balance, the run goes ahead.
        """
        if not survey.counts[Action.SUBMIT]:
            return None
        balance_usd = await self._unless_ended(self.batch.service.balance_usd())
        if balance_usd is None:
            return None
        if balance_usd <= 0:
            return no_balance_error(usd(balance_usd))
        if survey.least_usd is not None and balance_usd < survey.least_usd:
            self._notice(
                f"the balance of {usd(balance_usd)} is less than the estimated"
                f" {usd(survey.least_usd)}; the run will stop when it runs out"
            )
        return None

    async def _execute(
        self,
        ledger: Ledger,
        limits: Limits,
        survey: Survey,
        orphans: list[Planned],
        *,
        basis: str | None,
        began: float,
    ) -> Summary:
        batch, state = self.batch, ledger.state
        spent_before_usd, started = state.spent_usd, self._run_started(survey, basis)
        self._record(ledger, started)
        uploading = open_uploads(batch, self._on_upload, self._notice, self._clock)
        async with open_downloads(batch) as downloads, uploading as uploads:
            self._runner = new_runner(
                batch,
                ledger,
                downloads,
                limits,
                self._clock,
                uploads=uploads,
                listener=self._listener,
                notice=self._notice,
                orphans={planned.job.fingerprint for planned in orphans},
                survey=survey,
            )
            control = self._runner.control
            for stop in self._early:
                control.end(stop)
            fresh = self._fresh(state, survey)
            with self._obeying_requests(ledger.path.parent, started.run):
                await self._runner.run([*orphans, *survey.waiting.values()], fresh)
        summary = summary_of(
            batch,
            control,
            survey,
            state,
            spent_before_usd=spent_before_usd,
            elapsed_s=self._clock.monotonic() - began,
        )
        bug = None if control.stop is None else control.stop.error
        if bug is not None and bug is not summary.error:
            raise bug
        self._record(ledger, self._run_finished(started.run, summary, control.tally))
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
            for planned in plan_jobs(self.batch, state, redos=survey.redos)
            if planned.is_twin or planned.job.fingerprint not in survey.waiting
        )

    @contextmanager
    def _obeying_requests(self, folder: Path, run_id: str) -> Iterator[None]:
        """End when another process asks for it. By real time: that is what the other one has."""
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle | None = None

        def look() -> None:
            nonlocal timer
            if is_asked_to_drain(folder, run_id):
                self._notice(
                    "asked to stop: nothing more is submitted, what is paid for is collected"
                )
                self.end(Stop("drained", "another process asked this run to stop"))
            else:
                timer = loop.call_later(_LOOK_FOR_REQUEST_S, look)

        look()
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()
            forget_request(folder, run_id)

    def _record(self, ledger: Ledger, record: Record) -> None:
        try:
            ledger.append(record)
        except BatchRunnerError as error:
            # The run's outcome matters more than the note about it; the disk is already reported.
            self._notice(error.message)
        self._listener(record)

    def _run_started(self, survey: Survey, basis: str | None) -> RunStarted:
        return RunStarted(
            at=self._clock.now(),
            run=uuid.uuid4().hex[:12],
            pid=os.getpid(),
            host=socket.gethostname(),
            program=PROGRAM,
            manifest_sha256=self.batch.manifest.sha256,
            jobs=survey.jobs,
            plan={str(action): count for action, count in survey.counts.items() if count},
            basis=basis,
        )

    def _run_finished(self, run_id: str, summary: Summary, tally: Tally) -> RunFinished:
        return RunFinished(
            at=self._clock.now(),
            run=run_id,
            submitted=summary.submitted,
            saved=tally.saved,
            failed=tally.failed,
            unknown=tally.unknown,
            cost_usd=summary.cost_usd,
            elapsed_s=round(summary.elapsed_s, 3),
            stopped=None if summary.stop is None else summary.stop.reason,
        )
