"""How a run goes: what its jobs record and count, and what ends it.

Hides who listens and what a kind of trouble means for all the others. What always holds: a record
is in the ledger before anybody hears of it; the first reason to stop stays; after `drain` nothing
more is submitted, and what is paid for is still collected.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any

from batch_runner.errors import AccessRefusedError, BatchRunnerError
from batch_runner.files.storage import NotSavedError
from batch_runner.ledger.job import Standing, standing_of
from batch_runner.manifest.form import FailureLimit
from batch_runner.pacing.slots import Slots
from batch_runner.records import Failed, Job, Record, Saved
from batch_runner.run.brake import Brake
from batch_runner.run.survey import Survey
from batch_runner.run.terms import Listener, Resources, Stop, Tally
from batch_runner.service.answer import Meaning, Verdict
from batch_runner.service.call import unavailable

_SAY_PAUSE_S = 2.0


class Course:
    """How one run goes, as every step of every job sees it."""

    def __init__(
        self,
        resources: Resources,
        slots: Slots,
        *,
        failures: FailureLimit,
        listener: Listener,
        notice: Callable[[str], None],
        orphans: Collection[str],
        survey: Survey,
    ) -> None:
        self._ledger = resources.ledger
        self._pacer = resources.pacer
        self._prices = resources.prices
        self._clock = resources.clock
        self._slots = slots
        self.brake = Brake(failures)
        self._listener = listener
        self._orphans = orphans
        self._standings = survey.standings
        self._twins = survey.twins
        self._to_reattach = 0
        self.notice = notice
        self.tally = Tally()
        self.stop: Stop | None = None
        self.error: BatchRunnerError | None = None
        self.bug: Exception | None = None
        self.leaving = asyncio.Event()
        """Set when the run is to end now: what is at the service is the next run's."""
        self.reattached = asyncio.Event()
        """Set once every request of an earlier run was asked about."""

    # What is recorded and counted

    def about(self, job: Job) -> dict[str, Any]:
        """Return what every record about a job begins with."""
        return {"at": self._clock.now(), "job": job.key, "fingerprint": job.fingerprint}

    def record(self, record: Record) -> None:
        """Have the ledger take a record, and tell who listens."""
        self._ledger.append(record)
        self._prices.take(record)
        try:
            self._listener(record)
        except Exception as error:  # noqa: BLE001 - a listener is a guest: it must not break a job
            self._listener = _deaf
            self.stumble(error, f"a listener failed: {error!r}")

    def count(self, job: Job, what: str) -> None:
        """Count what became of a job, by its field of Tally; orphans are counted apart."""
        what = "orphans" if job.fingerprint in self._orphans else what
        setattr(self.tally, what, getattr(self.tally, what) + 1)

    def leave_for_next_run(self, job: Job) -> None:
        """Count a job that is bought and not saved."""
        if job.fingerprint in self._orphans:
            self.tally.orphans_left += 1
        else:
            self.tally.unsaved += self.standing(job) is Standing.DONE

    def standing(self, job: Job) -> Standing:
        """Return how a job stands by the ledger; outside a worker, none is being sent."""
        jobs = self._ledger.state.jobs
        if jobs.is_finished(job.fingerprint):
            return Standing.DONE  # every job comes by here: what is put away need not be read
        return standing_of(jobs.open.get(job.fingerprint), running=False)

    def moved_on(self, job: Job, before: Standing) -> None:
        """Count how a job stands after a worker did its part; equal ones stand alike."""
        if job.fingerprint not in self._orphans:
            times = 1 + self._twins.get(job.fingerprint, 0)
            self._standings.move(before, self.standing(job), times)

    def finished(self, *, well: bool) -> None:
        """Take in how a job ended; too many that ended badly end the submits."""
        self.heed(self.brake.finished(well=well))

    def saved(self, job: Job, record: Saved) -> None:
        """Record that a job's files are in place."""
        self.record(record)
        self.count(job, "saved")
        self.heed(self.brake.saved(job.model))

    def leave_unsaved(self, job: Job, error: NotSavedError) -> None:
        """Leave a job for the next run, which saves it for free; too many end the submits."""
        hint = f" (hint: {error.hint})" if error.hint else ""
        self.notice(f"{job.key}: {error}; left for the next run{hint}")
        self.leave_for_next_run(job)
        self.heed(self.brake.not_saved(job.model, error))

    def heed(self, stop: Stop | None) -> None:
        """Stop submitting if the brake says so."""
        if stop is not None:
            self.drain(stop)

    def fail(self, job: Job, record: Failed) -> None:
        """Record that the service could not do a job."""
        self.record(record)
        self.count(job, "failed")
        self._pacer.reached()
        self.finished(well=False)

    def expect(self, requests: int) -> None:
        """Hold back submits until so many requests of earlier runs were asked about."""
        self._to_reattach = requests
        if not requests:
            self.reattached.set()

    def count_reattached(self) -> None:
        """Take in that a request of an earlier run was asked about."""
        self._to_reattach -= 1
        if self._to_reattach == 0:
            self.reattached.set()

    # What ends it

    def drain(self, stop: Stop) -> None:
        """Stop submitting; what is paid for is still collected. The first reason stays."""
        if self.stop is None:
            self.stop = stop
        self._pacer.stop()
        self._slots.stop()
        self.brake.stop()

    def end_submits(self, error: BatchRunnerError) -> None:
        """Stop submitting because of an error, with which the run will end. The first stays."""
        self.error = self.error or error
        self.drain(Stop("error", error.message))

    def stumble(self, bug: Exception, what: str) -> None:
        """Stop submitting because of a defect, of this program or of a listener."""
        self.bug = self.bug or bug
        self.drain(Stop("bug", what))

    def leave(self, stop: Stop) -> None:
        """End now: what is at the service stays there for the next run."""
        self.drain(stop)
        self.leaving.set()
        self.reattached.set()

    def abort(self, error: BatchRunnerError) -> None:
        """End now because of an error."""
        self.end_submits(error)
        self.leave(Stop("error", error.message))

    def after_trouble(self, verdict: Verdict) -> None:
        """Wait, slow down or end the run, by what kind of trouble a free answer tells of."""
        match verdict.meaning:
            case Meaning.THROTTLED:
                self._pacer.throttled(verdict.retry_after_s)
            case Meaning.NO_BALANCE:
                error = AccessRefusedError(
                    f"the account has no balance: {verdict.message}",
                    hint="top it up, then run the same command again: nothing is lost",
                )
                self.error = self.error or error
                self.drain(Stop("no balance", error.message))
            case Meaning.TOKEN_REFUSED:
                raise AccessRefusedError(
                    f"the service refused the token ({verdict.reason}): {verdict.message}",
                    hint="set RUNCOMFY_API_TOKEN to a valid token of the account that ran this"
                    " batch, then run the same command again: nothing is lost",
                )
            case Meaning.BARRED:
                raise unavailable(verdict.message)
            case _:
                wait_s = self._pacer.unreachable(f"{verdict.reason}: {verdict.message}")
                if wait_s is not None and wait_s >= _SAY_PAUSE_S:
                    trouble = f"{verdict.reason}: {verdict.message}"
                    self.notice(f"no usable answer ({trouble}); asking again in {wait_s:.0f} s")


def _deaf(_: Record) -> None:
    """Stand in for a listener that failed."""
