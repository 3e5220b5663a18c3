"""The control of a run: what its jobs record and count, and what ends it.

Hides who listens, and what one job's trouble means for all the others. What always holds: a record
is in the ledger before anyone hears of it; after `end` nothing more is submitted, and what is paid
for is still collected, by this run or the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import msgspec

from batch_runner.errors import AccessRefusedError
from batch_runner.files.storage import NotSavedError
from batch_runner.ledger.job import Phase, Standing, standing_of
from batch_runner.manifest.form import Limits
from batch_runner.pacing.pacer import Pacer
from batch_runner.pacing.slots import Slots
from batch_runner.records import Failed, Job, Record, Refused, Saved
from batch_runner.run.brake import Brake
from batch_runner.run.setting import Setting, ignore
from batch_runner.run.stop import Stop
from batch_runner.run.survey import Survey
from batch_runner.service.answer import Meaning, Verdict
from batch_runner.service.network import token_refused, unavailable

_REPORT_PAUSE_S = 2.0


class Tally(msgspec.Struct):
    """What became of the manifest's jobs in this run, counted as it happens.

    `unsaved` counts those that are done by the ledger and have no file in place.
    """

    submitted: int = 0
    saved: int = 0
    failed: int = 0
    unknown: int = 0
    cancelled: int = 0
    unsaved: int = 0
    orphans: int = 0
    orphans_left: int = 0


class Control:
    """What every step of every job uses to record, to count, and to end the run."""

    def __init__(
        self, setting: Setting, limits: Limits, survey: Survey, orphans: Collection[str]
    ) -> None:
        self.setting = setting
        self.limits = limits
        self._ledger = setting.ledger
        self._clock = clock = setting.clock
        self.pacer = Pacer(limits, setting.batch.manifest.retry, clock)
        times, now = self._ledger.state.submit_times, clock.now()
        self.pacer.remember_submits((now - at).total_seconds() for at in times)
        self.slots = Slots(limits.in_flight)
        self.brake = Brake(limits.failures)
        self._listener = setting.listener
        self._orphans = orphans
        self._standings = survey.standings
        self._twins = survey.twins
        self._to_reattach = 0
        self.notice = setting.notice
        self.tally = Tally()
        self.end = setting.ending.end
        """Ends the run."""
        self.leaving = setting.ending.leaving
        """Set when the run ends at once: what is at the service is left to the next run."""
        self.reattached = asyncio.Event()
        """Set once every request of an earlier run was polled."""
        setting.ending.listen(self._stop_submits)
        if setting.ending.stop is not None:
            self._stop_submits(setting.ending.stop)

    # What is recorded and counted

    def about(self, job: Job) -> dict[str, Any]:
        """Return the fields that every record about a job has."""
        return {"at": self._clock.now(), "job": job.key, "fingerprint": job.fingerprint}

    def record(self, record: Record) -> None:
        """Add a record to the ledger, then pass it to the listener."""
        self._ledger.append(record)
        self.setting.batch.prices.take(record)
        try:
            self._listener(record)
        except Exception as error:  # noqa: BLE001 - a listener must not break a job
            self._listener = ignore
            self.end(Stop("bug", f"a listener failed: {error!r}", error=error))

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

    def phase(self, job: Job) -> Phase | None:
        """Return how far a job has come by the ledger; None if it is not in there."""
        # Every job comes by here several times: what is put away need not be read.
        jobs = self._ledger.state.jobs
        known = jobs.open.get(job.fingerprint)
        if known is not None:
            return known.phase
        return Phase.DONE if jobs.is_finished(job.fingerprint) else None

    def standing(self, job: Job) -> Standing:
        """Return how a job stands by the ledger; outside a worker, none is being sent."""
        if self.phase(job) is Phase.DONE:
            return Standing.DONE
        return standing_of(self._ledger.state.jobs.open.get(job.fingerprint), running=False)

    def count_move(self, job: Job, before: Standing) -> None:
        """Count how a job stands after a worker did its part; equal jobs stand alike."""
        if job.fingerprint not in self._orphans:
            times = 1 + self._twins.get(job.fingerprint, 0)
            self._standings.move(before, self.standing(job), times)

    def finished(self, *, well: bool) -> None:
        """Count how a job ended; too many that ended badly end the run."""
        self.end(self.brake.finished(well=well))

    def saved(self, job: Job, record: Saved) -> None:
        """Record that a job's files are in place."""
        self.record(record)
        self.count(job, "saved")
        self.brake.saved(job.model)

    def leave_unsaved(self, job: Job, error: NotSavedError) -> None:
        """Leave a job for the next run, which saves it for free; too many of them end this run."""
        hint = f" (hint: {error.hint})" if error.hint else ""
        self.notice(f"{job.key}: {error}; left for the next run{hint}")
        self.leave_for_next_run(job)
        self.end(self.brake.not_saved(job.model, error))

    def fail(self, job: Job, record: Failed | Refused) -> None:
        """Record that the service could not do a job."""
        self.record(record)
        self.count(job, "failed")
        self.pacer.reached()
        self.finished(well=False)

    def expect(self, requests: int) -> None:
        """Hold back submits until so many requests of earlier runs were polled."""
        self._to_reattach = requests
        if not requests:
            self.reattached.set()

    def count_reattached(self) -> None:
        """Count a request of an earlier run that was polled."""
        self._to_reattach -= 1
        if self._to_reattach == 0:
            self.reattached.set()

    # What ends it

    def _stop_submits(self, _: Stop) -> None:
        self.pacer.stop()
        self.slots.stop()
        self.brake.stop()
        if self.leaving.is_set():
            self.reattached.set()

    def after_trouble(self, verdict: Verdict) -> None:
        """Wait, slow down or end the run, depending on the trouble that an answer reports."""
        match verdict.meaning:
            case Meaning.THROTTLED:
                self.pacer.throttled(verdict.retry_after_s)
            case Meaning.NO_BALANCE:
                error = no_balance_error(verdict.message)
                self.end(Stop("no balance", error.message, error=error))
            case Meaning.TOKEN_REFUSED:
                raise token_refused(f"{verdict.reason}: {verdict.message}")
            case Meaning.BARRED:
                raise unavailable(verdict.message)
            case _:
                wait_s = self.pacer.unreachable(f"{verdict.reason}: {verdict.message}")
                if wait_s is not None and wait_s >= _REPORT_PAUSE_S:
                    trouble = f"{verdict.reason}: {verdict.message}"
                    self.notice(f"no usable answer ({trouble}); trying again in {wait_s:.0f} s")


def no_balance_error(detail: str) -> AccessRefusedError:
    """Return the error that an account without a balance causes."""
    return AccessRefusedError(
        f"the account has no balance: {detail}",
        hint="top it up, then run the same command again: nothing is lost",
    )
