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
# As many of the last submits are remembered for the rate limits of the next run.
_SUBMIT_TIMES = 10_000


class State:
    """Everything a ledger says, folded up; `apply` takes one record further."""

    def __init__(self) -> None:
        self.header: LedgerHeader | None = None
        self.jobs = Jobs()
        self.spent_usd = _ZERO
        self.reserved_usd = _ZERO
        self._amounts: dict[Decimal, Decimal] = {}
        self.submit_times: deque[datetime] = deque(maxlen=_SUBMIT_TIMES)
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
        if key == job.key:
            return self.jobs.is_last(job)
        return self.jobs.last_fingerprint(key) == job.fingerprint

    def apply(self, record: Record, offset_bytes: int = 0) -> None:
        """Take one record into account; ValueError where it cannot follow what came before.

        `offset_bytes` is where its line begins: what was sent is read again when it is asked for,
        instead of being held for every job.
        """
        self.check(record)
        self.apply_checked(record, offset_bytes)

    def apply_checked(self, record: Record, offset_bytes: int) -> None:
        """Take a record into account that `check` has let pass."""
        # By their types, in a table: a million jobs have four million records, and isinstance()
        # of a struct takes as long as all the rest of it.
        kind = type(record)
        if kind is Submitting:
            self._apply_submitting(record, offset_bytes)  # type: ignore[arg-type]  # see above
        elif kind in self._STEPS:
            job = self._job_of(record)  # type: ignore[arg-type]
            self._STEPS[kind](self, job, record)
            if job.phase is Phase.DONE:
                self.jobs.settle(job)
        elif isinstance(record, LedgerHeader):
            self.header = record
        elif isinstance(record, RunStarted):
            self.run_started, self.run_finished = record, None
        elif isinstance(record, RunFinished):
            self.run_finished = record

    def check(self, record: Record) -> None:
        """Change nothing; ValueError where a record cannot follow what came before."""
        kind = type(record)
        if kind not in _FOLLOWING:
            self._check_first(record)
        elif (
            record.fingerprint not in self.jobs.open  # type: ignore[union-attr]  # a job's, all of them
            and record.fingerprint not in self.jobs  # type: ignore[union-attr]
        ):
            raise ValueError("the job was never submitted")
        name = _AMOUNTS.get(kind)
        amount = None if name is None else getattr(record, name)
        if amount is not None and not (amount.is_finite() and amount >= 0):
            raise ValueError(f"{amount} USD is not an amount")

    def _check_first(self, record: Record) -> None:
        if isinstance(record, LedgerHeader) and self.header is not None:
            raise ValueError("a second header")
        if isinstance(record, Resolved) and record.how == "attached" and not record.request_id:
            raise ValueError("no request is named that the job is attached to")

    def _job_of(self, record: JobRecord) -> JobState:
        jobs, key = self.jobs, record.job
        job = jobs.open.get(record.fingerprint) or self._opened(record)
        # What a key stands for moves with what was last asked for under it; a late result of an
        # earlier prompt does not move it back.
        if key not in jobs.names and jobs.last_fingerprint(key) is None:
            jobs.names[key] = job.fingerprint
        return job

    def _opened(self, record: JobRecord) -> JobState:
        job = self.jobs.take(record.fingerprint)
        if job is None:
            job = self.jobs.open[record.fingerprint] = JobState(record.job, record.fingerprint)
        return job

    def _apply_submitting(self, record: Submitting, offset_bytes: int) -> None:
        job = self._opened(record)
        self.jobs.names[record.job] = job.fingerprint
        self._presume_paid(job)
        job.key, job.path, job.model = record.job, record.path, sys.intern(record.model)
        job.phase, job.request_id = Phase.SUBMITTING, None
        job.reason = job.message = None
        job.intent_offset_bytes = offset_bytes
        self.submit_times.append(record.at)
        self._reserve(job, record.reserved_usd)

    def _apply_refused(self, job: JobState, record: Refused) -> None:
        self._settle(job, _ZERO)
        job.phase, job.again = Phase.REFUSED, record.again
        job.reason, job.message = record.reason, record.message

    def _apply_submitted(self, job: JobState, record: Submitted) -> None:
        job.phase, job.request_id = Phase.IN_FLIGHT, record.request_id

    def _apply_unknown(self, job: JobState, record: Unknown) -> None:
        job.phase, job.reason, job.message = Phase.UNKNOWN, "unknown", record.why

    def _apply_succeeded(self, job: JobState, record: Succeeded) -> None:
        self._settle(job, record.cost_usd)
        job.phase, job.request_id = Phase.SUCCEEDED, record.request_id

    def _apply_failed(self, job: JobState, record: Failed) -> None:
        self._settle(job, record.cost_usd)
        job.phase, job.reason, job.message = Phase.FAILED, record.reason, record.message

    def _apply_cancelled(self, job: JobState, record: Cancelled) -> None:
        self._settle(job, record.cost_usd or _ZERO)
        job.phase, job.reason = Phase.CANCELLED, "cancelled"

    def _apply_saved(self, job: JobState, record: Saved) -> None:
        if record.reused_from is not None:
            self.jobs.names[record.job] = job.fingerprint
        self._settle(job, None)
        files = tuple(record.files)
        if job.files and job.files != files:
            # Under an earlier or another name: whole copies that were paid for.
            others = (one for one in job.copies if one not in (files, job.files))
            job.copies = (*others, job.files)
        job.phase, job.files = Phase.DONE, files
        job.reason = job.message = None

    def _apply_resolved(self, job: JobState, record: Resolved) -> None:
        match record.how:
            case "attached":
                job.phase, job.request_id = Phase.IN_FLIGHT, record.request_id
            case "resubmit":
                self._presume_paid(job)
                job.phase = Phase.RELEASED
            case "abandoned":
                self._settle(job, None)
                job.phase, job.reason = Phase.CANCELLED, ABANDONED

    # Money: what was reserved stays counted until the service, or the lack of a better figure,
    # replaces it. One request counts once, however often its result is read; the figure read last
    # holds. An unknown job that is sent again counts twice: it may have been paid twice.

    def _reserve(self, job: JobState, amount: Decimal | None) -> None:
        job.reserved_usd = amount
        self.reserved_usd += amount or _ZERO

    def _settle(self, job: JobState, cost_usd: Decimal | None) -> None:
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

    _STEPS: ClassVar[dict[type, Callable[[State, JobState, Any], None]]] = {
        Refused: _apply_refused,
        Submitted: _apply_submitted,
        Unknown: _apply_unknown,
        Succeeded: _apply_succeeded,
        Failed: _apply_failed,
        Cancelled: _apply_cancelled,
        Saved: _apply_saved,
        Resolved: _apply_resolved,
    }


_FOLLOWING = frozenset((Refused, Submitted, Unknown, Succeeded, Failed, Cancelled))
_AMOUNTS = dict.fromkeys((Succeeded, Failed, Cancelled), "cost_usd") | {Submitting: "reserved_usd"}
