"""The worker pool, and the life of a job: submit, collect, save.

Hides concurrency. What always holds: each job goes to one worker; a worker never lets a job's
failure out; an error that ends the run lets the submits under way finish, because the outcome of a
POST that is broken off is unknown for ever.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Collection, Iterable, Iterator

from batch_runner.errors import BatchRunnerError, ManifestError
from batch_runner.ledger.job import JobState, Phase
from batch_runner.manifest.form import Limits
from batch_runner.records import Job
from batch_runner.run.collect import Results
from batch_runner.run.control import Control
from batch_runner.run.plan import Action, Planned, decide
from batch_runner.run.save import Saving
from batch_runner.run.setting import Setting
from batch_runner.run.stop import Stop
from batch_runner.run.submit import Submission
from batch_runner.run.survey import Survey
from batch_runner.service.answer import Result

_LEAVE_GRACE_S = 5.0


class Runner:
    """Does what was planned, once; `control` shows how it goes.

    `survey` is the plan in figures, whose standings are kept up to date; `orphans` are the
    fingerprints of jobs that have left the manifest.
    """

    def __init__(
        self,
        setting: Setting,
        limits: Limits,
        *,
        survey: Survey | None = None,
        orphans: Collection[str] = (),
    ) -> None:
        self._setting = setting
        self._ledger = setting.ledger
        self.control = Control(setting, limits, survey or Survey(), orphans)
        self._slots = self.control.slots
        self._submission = Submission(self.control)
        self._results = Results(self.control)
        self._saving = Saving(self.control, self._results)
        self._downloading = asyncio.Semaphore(limits.downloads)
        self._workers: list[asyncio.Task[None]] = []

    async def run(self, waiting: list[Planned], fresh: Iterable[Planned]) -> None:
        """Collect what is `waiting`, then do what is `fresh`.

        Returns when nothing is left to do, or the setting's `ending` says why not.
        """
        if fresh:
            self._submission.know_requests()
        self.control.expect(sum(planned.action is Action.COLLECT for planned in waiting))
        # All workers share one iterator; taking the next job is synchronous, so each job goes to
        # exactly one of them, and a million jobs cost no memory. What is paid for comes first.
        stream = itertools.chain(waiting, fresh)
        count = self.control.limits.in_flight + self.control.limits.downloads
        self._setting.ending.listen(self._leave)
        async with asyncio.TaskGroup() as group:
            self._workers = [group.create_task(self._work(stream)) for _ in range(count)]
        try:
            await self._save_twins()
        except BatchRunnerError as error:
            self.control.end(Stop.of_error(error, at_once=True))

    async def _save_twins(self) -> None:
        """Look again at jobs whose twin had not ended when their turn came."""
        for job in self._saving.take_twins():
            if self.control.leaving.is_set():
                return
            again = decide(job, self._ledger.state, self._setting.batch.storage.is_in_place)
            match again.action:
                case Action.REUSE:
                    await self._live(again)
                case Action.DOWNLOAD if again.state and again.state.phase is Phase.DONE:
                    # The twin's file was damaged, and the twin did not need it read whole.
                    await self._live(again)
                case Action.COLLECT | Action.DOWNLOAD:
                    self.control.leave_for_next_run(job)

    def _leave(self, stop: Stop) -> None:
        """Break off everything but a POST under way, if the run is ended at once from outside.

        After an error, other workers finish the step that they are at.
        """
        if stop.at_once and stop.error is None:
            for worker in set(self._workers) - self._submission.posting:
                worker.cancel()
            # A POST that is broken off is unknown for ever; most are answered within moments, and
            # their workers end by themselves.
            for worker in self._workers:
                worker.get_loop().call_later(_LEAVE_GRACE_S, worker.cancel)

    async def _work(self, stream: Iterator[Planned]) -> None:
        while not self.control.leaving.is_set():
            try:
                planned = next(stream, None)
                if planned is None:
                    return
                await self._live(planned)
            except BatchRunnerError as error:
                # If a table or picture changed under the run, what is paid for is still collected.
                at_once = not isinstance(error, ManifestError)
                self.control.end(Stop.of_error(error, at_once=at_once))
                return
            except Exception as error:  # noqa: BLE001 - see below
                # Raised, it would cancel the other workers, and with them POSTs that are paid for.
                # So they finish their work, and the run ends as a bug of this program.
                self.control.end(Stop("bug", f"a bug of this program: {error!r}", error=error))
                return
            if self.control.pacer.is_stopped and planned.action is Action.SUBMIT:
                # Whatever follows in the stream is a submit too, or can wait for the next run.
                return
            if planned.action in (Action.SKIP, Action.HOLD):
                # Nothing was awaited: yield to the loop, or a million finished jobs in a row would
                # hold up the polls of other workers.
                await asyncio.sleep(0)

    # The life of a job

    async def _live(self, planned: Planned) -> None:
        job, control = planned.job, self.control
        if planned.action in (Action.SKIP, Action.HOLD):
            return
        before = control.standing(job)
        try:
            await self._steps(planned)
        except asyncio.CancelledError:
            # The run ends at once: the next run collects what is at the service, and downloads.
            phase = control.phase(job)
            if phase in (Phase.IN_FLIGHT, Phase.SUCCEEDED):
                control.leave_for_next_run(job)
            elif phase is Phase.SUBMITTING:
                control.count(job, "unknown")
            raise
        finally:
            # Copying an equal job's files does not change how that job stands.
            if planned.action is not Action.REUSE or planned.is_of_another:
                control.count_move(job, before)
            was_bought = control.phase(job) not in (None, Phase.REFUSED)
            control.end(control.brake.ended(job.fingerprint, was_bought=was_bought))

    async def _steps(self, planned: Planned) -> None:
        job, known = planned.job, planned.state
        request = known.request_id if known else None
        if planned.action is Action.REUSE:
            await self._saving.reuse(planned)
            return
        if planned.action is Action.SUBMIT:
            made = await self._results.came_after_all(job, known) if known else None
            if made is None:
                request, made = await self._buy(job, known)
        else:
            self._slots.occupy()
            if known is not None and known.phase is Phase.SUCCEEDED:
                self.control.brake.expect(job.fingerprint)
            made = None
            try:
                if request is not None:
                    made = await self._results.collect(job, request, reattach=planned.action)
            finally:
                self._give_back_slot(job)
        if request is not None and made is not None:
            async with self._downloading:
                await self._saving.download(job, request, made)
            # Not even a power cut may lose this record: the service forgets results in time.
            self._ledger.sync_soon()

    async def _buy(self, job: Job, known: JobState | None) -> tuple[str | None, Result | None]:
        """Submit a job and collect it: (its request, what it made)."""
        has_pictures = self._submission.pictures.has_work(job)
        # Uploading is slow: if it can be, it is done before the service's slot is taken.
        if not (
            (not has_pictures or await self._submission.prepare(job, known))
            and await self.control.brake.may_buy(job.fingerprint)
            and await self._slots.take()
        ):
            return None, None
        try:
            request = await self._submission.submit(job, known, has_pictures=has_pictures)
            if request is None:
                return None, None
            # A request_id is paid for: not even a power cut may lose it. Nothing waits for the
            # sync, because until then the job would be unknown, not lost.
            self._ledger.sync_soon()
            return request, await self._results.collect(job, request)
        finally:
            self._give_back_slot(job)

    def _give_back_slot(self, job: Job) -> None:
        """Give back a slot at the service, or keep it if the request has not ended."""
        if self.control.phase(job) is not Phase.IN_FLIGHT:
            self._slots.free()
            return
        self._slots.keep()
        if self._slots.all_kept:
            what = "requests that do not end take up every slot of limits.in_flight"
            self.control.end(Stop("stuck", what))
