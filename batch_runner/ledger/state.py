"""What a ledger adds up to: the state of every job, and the money.

Hides what each record changes. What always holds: `State.apply` is the only place where a record
changes what is known of a job, so that replaying a file and running live give the same state; money
is counted until something better is known.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from itertools import repeat
from typing import Any, ClassVar

from batch_runner.ledger.job import ABANDONED, JobState, Phase
from batch_runner.ledger.packed import Jobs
from batch_runner.records import (
    Cancelled,
    Failed,
    JobRecord,
    LedgerHeader,
    Record,
    Refused,
    Resolved,
    RunFinished,
    RunStarted,
    Saved,
    Submitted,
    Submitting,
    Succeeded,
    Unknown,
)

_ZERO = Decimal(0)
# What every job passes: an enumeration's own attributes are slow.
_SUBMITTING = Phase.SUBMITTING
_IN_FLIGHT = Phase.IN_FLIGHT
_SUCCEEDED = Phase.SUCCEEDED
_DONE = Phase.DONE
# As many of the last submits are remembered for the rate limits of the next run.
_SUBMIT_TIMES = 10_000


class State:
    """Everything a ledger says, folded up; `apply` takes one record further."""

    def __init__(self) -> None:
        self.header: LedgerHeader | None = None
        self.jobs = Jobs()
        self.spent_usd = _ZERO
        self.reserved_usd = _ZERO
        self.former_requests: list[str] = []
        """Requests of jobs that were given another one since."""
        self._amounts: dict[Decimal, Decimal] = {}
        # Purchases of unknown cost, sent while no price was known; see `is_unpriced`.
        self._unpriced: set[int] = set()
        self.submit_times: deque[datetime] = deque(maxlen=_SUBMIT_TIMES)
        """When each of the last submits had left at the latest, by the record that follows it."""
        self.leaving = 0
        """Submits of the last run that nothing follows: they may have left until its very end."""
        self.run_started: RunStarted | None = None
        self.run_finished: RunFinished | None = None

    def job(self, fingerprint: str) -> JobState | None:
        """Return what is known of a fingerprint, or None."""
        return self.jobs.get(fingerprint)

    def last_fingerprint(self, key: str) -> str | None:
        """Return the fingerprint under which a key was last seen, or None."""
        return self.jobs.last_fingerprint(key)

    def stands_for(self, key: str, job: JobState) -> bool:
        """Tell whether a key was last seen under the fingerprint of a job of this ledger."""
        return self.jobs.last_fingerprint(key) == job.fingerprint

    def apply(self, record: Record, offset_bytes: int = 0) -> None:
        """Take one record into account; ValueError where it cannot follow what came before.

        `offset_bytes` is where its line begins: what was sent is read again when it is asked for,
        instead of being held for every job. After an error the state is of no more use; whoever
        goes on with it asks `check` before.
        """
        # By their types, in a table: a million jobs have four million records, and isinstance()
        # of a struct takes as long as all the rest of it.
        self._STEPS[type(record)](self, record, offset_bytes)

    def check(self, record: Record) -> None:
        """Change nothing; ValueError where `apply` would raise it."""
        kind = type(record)
        if kind not in _FOLLOWING:
            self._check_first(record)
        elif record.fingerprint not in self.jobs:  # type: ignore[union-attr]  # a job's, all of them
            raise ValueError("the job was never submitted")
        name = _AMOUNTS.get(kind)
        if name is not None:
            _require_amount(getattr(record, name))

    def _check_first(self, record: Record) -> None:
        if isinstance(record, LedgerHeader) and self.header is not None:
            raise ValueError("a second header")
        if isinstance(record, Resolved) and record.how == "attached" and not record.request_id:
            raise ValueError("no request is named that the job is attached to")

    def _apply_header(self, record: LedgerHeader, _: int) -> None:
        self.check(record)
        self.header = record

    def _apply_run_started(self, record: RunStarted, _: int) -> None:
        self.run_started, self.run_finished = record, None
        self._see_all_departures(record.at)

    def _apply_run_finished(self, record: RunFinished, _: int) -> None:
        self.run_finished = record
        self._see_all_departures(record.at)

    def _see_all_departures(self, at: datetime) -> None:
        """Take in that no submit of the run before this moment, killed or not, leaves after it."""
        self.submit_times.extend(repeat(at, min(self.leaving, _SUBMIT_TIMES)))
        self.leaving = 0

    def _job_of(self, record: JobRecord) -> JobState:
        """Return a record's job, to be changed."""
        jobs, key = self.jobs, record.job
        job = jobs.open.get(record.fingerprint)
        if job is None:
            self.check(record)  # type: ignore[arg-type]  # a Record, as all of them are
            job = self._opened(key, record.fingerprint)
        elif key == job.key:
            return job  # which stands for something: it was submitted, or opened, under it
        # What a key stands for moves with what was last asked for under it; a late result of an
        # earlier prompt does not move it back.
        if key not in jobs.names and jobs.last_fingerprint(key) is None:
            jobs.names[key] = job.fingerprint
        return job

    def _opened(self, key: str, fingerprint: str) -> JobState:
        job = self.jobs.take(fingerprint)
        if job is None:
            job = self.jobs.open[fingerprint] = JobState(key, fingerprint)
        return job

    def _apply_submitting(self, record: Submitting, offset_bytes: int) -> None:
        _require_amount(record.reserved_usd)
        jobs, key, fingerprint = self.jobs, record.job, record.fingerprint
        amount, model = record.reserved_usd, sys.intern(record.model)
        job = jobs.open.get(fingerprint) or jobs.take(fingerprint)
        if job is None:
            job = jobs.open[fingerprint] = JobState(
                key,
                fingerprint,
                path=record.path,
                model=model,
                reserved_usd=amount,
                intent_offset_bytes=offset_bytes,
            )
        else:
            self._presume_paid(job)
            self._forget_request(job)
            job.key, job.path, job.model = key, record.path, model
            job.phase, job.request_id = _SUBMITTING, None
            job.reason = job.message = None
            job.reserved_usd, job.intent_offset_bytes = amount, offset_bytes
        jobs.names[key] = fingerprint
        # An intent may wait for the disk: only what follows it tells when the call had left.
        self.leaving += 1
        if amount is None:
            self._unpriced.add(_purchase(fingerprint, offset_bytes))
        else:
            self.reserved_usd += amount

    def _see_departure(self, job: JobState, at: datetime) -> None:
        if job.phase is _SUBMITTING and self.leaving:
            self.leaving -= 1
            self.submit_times.append(at)

    def _apply_refused(self, record: Refused, _: int) -> None:
        job = self._job_of(record)
        self._see_departure(job, record.at)
        self._settle(job, _ZERO)
        job.phase, job.again = Phase.REFUSED, record.again
        job.reason, job.message = record.reason, record.message

    def _apply_submitted(self, record: Submitted, _: int) -> None:
        job = self._job_of(record)
        self._see_departure(job, record.at)
        job.phase, job.request_id = _IN_FLIGHT, record.request_id

    def _apply_unknown(self, record: Unknown, _: int) -> None:
        job = self._job_of(record)
        self._see_departure(job, record.at)
        job.phase, job.reason, job.message = Phase.UNKNOWN, "unknown", record.why

    def _apply_succeeded(self, record: Succeeded, _: int) -> None:
        job = self._job_of(record)
        _require_amount(record.cost_usd)
        self._settle(job, record.cost_usd)
        job.phase, job.request_id = _SUCCEEDED, record.request_id

    def _apply_failed(self, record: Failed, _: int) -> None:
        job = self._job_of(record)
        _require_amount(record.cost_usd)
        self._settle(job, record.cost_usd)
        job.phase, job.reason, job.message = Phase.FAILED, record.reason, record.message

    def _apply_cancelled(self, record: Cancelled, _: int) -> None:
        job = self._job_of(record)
        _require_amount(record.cost_usd)
        self._settle(job, record.cost_usd or _ZERO)
        job.phase, job.reason = Phase.CANCELLED, "cancelled"

    def _apply_saved(self, record: Saved, offset_bytes: int) -> None:
        job = self._job_of(record)
        if record.model is not None:
            job.model, job.intent_offset_bytes = sys.intern(record.model), offset_bytes
        if record.reused_from is not None:
            self.jobs.names[record.job] = job.fingerprint
        self._settle(job, None)
        files = tuple(record.files)
        if job.files and job.files != files:
            # Under an earlier or another name: whole copies that were paid for.
            others = (one for one in job.copies if one not in (files, job.files))
            job.copies = (*others, job.files)
        job.phase, job.files = _DONE, files
        job.reason = job.message = None
        self.jobs.settle(job)

    def _apply_resolved(self, record: Resolved, _: int) -> None:
        self.check(record)
        job = self._job_of(record)
        match record.how:
            case "attached":
                if job.reserved_usd is None and not job.spent_usd:
                    # Found after all: a person said that it was never bought.
                    self._unpriced.add(_purchase(job.fingerprint, job.intent_offset_bytes))
                self._forget_request(job)
                job.phase, job.request_id = _IN_FLIGHT, record.request_id
            case "resubmit":
                self._settle(job, record.cost_usd)
                self._presume_paid(job)
                job.phase = Phase.RELEASED
            case "abandoned":
                self._settle(job, record.cost_usd)
                job.phase, job.reason = Phase.CANCELLED, ABANDONED

    def _forget_request(self, job: JobState) -> None:
        """Remember the request that a job no longer has: it is still no other job's."""
        if job.request_id is not None:
            self.former_requests.append(job.request_id)

    # Money: what was reserved stays counted until the service, or the lack of a better figure,
    # replaces it. One request counts once, however often its result is read; the figure read last
    # holds. An unknown job that is sent again counts twice: it may have been paid twice.

    def _settle(self, job: JobState, cost_usd: Decimal | None) -> None:
        if cost_usd is not None and self._unpriced:
            self._unpriced.discard(_purchase(job.fingerprint, job.intent_offset_bytes))
        if job.reserved_usd is None and cost_usd is None:
            return
        reserved_usd, job.reserved_usd = job.reserved_usd or _ZERO, None
        spent_usd = job.spent_usd + reserved_usd if cost_usd is None else cost_usd
        # A million jobs have a handful of prices: one object for each of those.
        spent_usd = self._amounts.setdefault(spent_usd, spent_usd)
        self.reserved_usd -= reserved_usd
        self.spent_usd += spent_usd - job.spent_usd
        job.spent_usd = spent_usd

    def _presume_paid(self, job: JobState) -> None:
        """Count the request as paid for, and be done with it: what follows is another one."""
        self._settle(job, None)
        job.spent_usd = _ZERO

    @property
    def unpriced(self) -> int:
        """Return how many purchases count for nothing, because nobody knows what they cost."""
        return len(self._unpriced)

    def is_unpriced(self, intent: Submitting, offset_bytes: int) -> bool:
        """Tell whether what this intent bought, or may have bought, counts for nothing so far."""
        return _purchase(intent.fingerprint, offset_bytes) in self._unpriced

    def count_at(self, cost_usd: Decimal, intent: Submitting, offset_bytes: int) -> None:
        """Count an unpriced purchase at a price that was learned after it was sent."""
        self._unpriced.remove(_purchase(intent.fingerprint, offset_bytes))
        job = self.jobs.open.get(intent.fingerprint)
        if job is None or not (
            job.may_have_been_bought and job.intent_offset_bytes == offset_bytes
        ):
            self.spent_usd += cost_usd
            return
        job.reserved_usd = cost_usd
        self.reserved_usd += cost_usd

    _STEPS: ClassVar[dict[type, Callable[[State, Any, int], None]]] = {
        LedgerHeader: _apply_header,
        RunStarted: _apply_run_started,
        RunFinished: _apply_run_finished,
        Submitting: _apply_submitting,
        Refused: _apply_refused,
        Submitted: _apply_submitted,
        Unknown: _apply_unknown,
        Succeeded: _apply_succeeded,
        Failed: _apply_failed,
        Cancelled: _apply_cancelled,
        Saved: _apply_saved,
        Resolved: _apply_resolved,
    }


def _purchase(fingerprint: str, offset_bytes: int) -> int:
    """Return what stands for one purchase: a number, because a million may have no price."""
    return hash((fingerprint, offset_bytes))


def _require_amount(amount: Decimal | None) -> None:
    if amount is not None and not (amount.is_finite() and amount >= 0):
        raise ValueError(f"{amount} USD is not an amount")


_FOLLOWING = frozenset((Refused, Submitted, Unknown, Succeeded, Failed, Cancelled))
_AMOUNTS = dict.fromkeys((Succeeded, Failed, Cancelled, Resolved), "cost_usd") | {
    Submitting: "reserved_usd"
}
