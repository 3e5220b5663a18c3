"""What a ledger adds up to: the state of every job, and the money.

Hides what each record changes. What always holds: `State.apply` is the only place where a record
changes what is known, so replaying a file and running live give the same state; money stays counted
until something better is known.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from itertools import repeat
from typing import Any

from batch_runner.ledger.job import ABANDONED, JobState, Phase
from batch_runner.ledger.job_table import Jobs
from batch_runner.ledger.money import ZERO, Money, require_amount
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

# Every job passes through these: looking up an enumeration's attributes is slow.
_SUBMITTING = Phase.SUBMITTING
_IN_FLIGHT = Phase.IN_FLIGHT
_SUCCEEDED = Phase.SUCCEEDED
_DONE = Phase.DONE
# How many submits are remembered for the rate limits of the next run.
_SUBMIT_TIMES = 10_000


class State:
    """Everything a ledger says, added up; `apply` adds one record."""

    def __init__(self) -> None:
        self.header: LedgerHeader | None = None
        self.jobs = Jobs()
        self.money = Money()
        self.former_requests: list[str] = []
        """Requests of jobs that have another request now."""
        self.submit_times: deque[datetime] = deque(maxlen=_SUBMIT_TIMES)
        """The latest moment at which each of the last submits can have left."""
        self.leaving = 0
        """Submits of the last run that no record follows: they may have left until its very end."""
        self.run_started: RunStarted | None = None
        self.run_finished: RunFinished | None = None

    @property
    def spent_usd(self) -> Decimal:
        """Return what was spent."""
        return self.money.spent_usd

    @property
    def reserved_usd(self) -> Decimal:
        """Return what open requests may still cost."""
        return self.money.reserved_usd

    def job(self, fingerprint: str) -> JobState | None:
        """Return what is known of a fingerprint, or None."""
        return self.jobs.get(fingerprint)

    def last_fingerprint(self, key: str) -> str | None:
        """Return the fingerprint under which a key was last seen, or None."""
        return self.jobs.last_fingerprint(key)

    def last_job(self, key: str) -> JobState | None:
        """Return the job that a key stands for, or None."""
        fingerprint = self.jobs.last_fingerprint(key)
        return None if fingerprint is None else self.jobs.get(fingerprint)

    def apply(self, record: Record, offset_bytes: int = 0) -> None:
        """Add one record; raises ValueError if it cannot follow what came before.

        `offset_bytes` is where its line begins: the input of a request is read again when it is
        needed, instead of being kept for every job. After an error the state is unusable; to keep
        using it, call `check` first.
        """
        # A table by type: a million jobs have four million records, and isinstance() on a struct
        # takes as long as everything else here.
        _STEPS[type(record)](self, record, offset_bytes)

    def check(self, record: Record) -> None:
        """Raise ValueError if `apply` would; changes nothing."""
        kind = type(record)
        if kind in _FOLLOWING:
            if record.fingerprint not in self.jobs:  # type: ignore[union-attr]  # all are a job's
                raise ValueError("the job was never submitted")
        elif isinstance(record, LedgerHeader) and self.header is not None:
            raise ValueError("a second header")
        elif isinstance(record, Resolved) and record.how == "attached" and not record.request_id:
            raise ValueError("it attaches a job but names no request")
        name = _AMOUNTS.get(kind)
        if name is not None:
            require_amount(getattr(record, name))


# One function a record.


def _header(state: State, record: LedgerHeader, _: int) -> None:
    state.check(record)
    state.header = record


def _run_started(state: State, record: RunStarted, _: int) -> None:
    state.run_started, state.run_finished = record, None
    _record_all_departures(state, record.at)


def _run_finished(state: State, record: RunFinished, _: int) -> None:
    state.run_finished = record
    _record_all_departures(state, record.at)


def _submitting(state: State, record: Submitting, offset_bytes: int) -> None:
    require_amount(record.reserved_usd)
    jobs, key, fingerprint = state.jobs, record.job, record.fingerprint
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
        state.money.begin_another(job)
        _forget_request(state, job)
        job.key, job.path, job.model = key, record.path, model
        job.phase, job.request_id = _SUBMITTING, None
        job.reason = job.message = None
        job.reserved_usd, job.intent_offset_bytes = amount, offset_bytes
    jobs.names[key] = fingerprint
    # An intent may wait for the disk: only the record after it tells by when the call had left.
    state.leaving += 1
    state.money.reserve(job)


def _refused(state: State, record: Refused, _: int) -> None:
    job = _job_of(state, record)
    _record_departure(state, job, record.at)
    state.money.record(job, ZERO)
    job.phase, job.again = Phase.REFUSED, record.again
    job.reason, job.message = record.reason, record.message


def _submitted(state: State, record: Submitted, _: int) -> None:
    job = _job_of(state, record)
    _record_departure(state, job, record.at)
    job.phase, job.request_id = _IN_FLIGHT, record.request_id


def _unknown(state: State, record: Unknown, _: int) -> None:
    job = _job_of(state, record)
    _record_departure(state, job, record.at)
    job.phase, job.reason, job.message = Phase.UNKNOWN, "unknown", record.why


def _succeeded(state: State, record: Succeeded, _: int) -> None:
    job = _job_of(state, record)
    require_amount(record.cost_usd)
    state.money.record(job, record.cost_usd)
    job.phase, job.request_id = _SUCCEEDED, record.request_id


def _failed(state: State, record: Failed, _: int) -> None:
    job = _job_of(state, record)
    require_amount(record.cost_usd)
    state.money.record(job, record.cost_usd)
    job.phase, job.reason, job.message = Phase.FAILED, record.reason, record.message


def _cancelled(state: State, record: Cancelled, _: int) -> None:
    job = _job_of(state, record)
    require_amount(record.cost_usd)
    state.money.record(job, record.cost_usd or ZERO)
    job.phase, job.reason = Phase.CANCELLED, "cancelled"


def _saved(state: State, record: Saved, offset_bytes: int) -> None:
    job = _job_of(state, record)
    if record.model is not None:
        job.model, job.intent_offset_bytes = sys.intern(record.model), offset_bytes
    if record.reused_from is not None:
        state.jobs.names[record.job] = job.fingerprint
    state.money.record(job, None)
    files = tuple(record.files)
    if job.files and job.files != files:
        # The earlier files, under other names: whole copies that were paid for.
        others = (one for one in job.copies if one not in (files, job.files))
        job.copies = (*others, job.files)
    job.phase, job.files = _DONE, files
    job.reason = job.message = None
    state.jobs.put_away(job)


def _resolved(state: State, record: Resolved, _: int) -> None:
    state.check(record)
    job = _job_of(state, record)
    match record.how:
        case "attached":
            if job.reserved_usd is None and not job.spent_usd:
                # A person had said that it was never bought, and now it was.
                state.money.reserve(job)
            _forget_request(state, job)
            job.phase, job.request_id = _IN_FLIGHT, record.request_id
        case "resubmit":
            state.money.record(job, record.cost_usd)
            state.money.begin_another(job)
            job.phase = Phase.RELEASED
        case "abandoned":
            state.money.record(job, record.cost_usd)
            job.phase, job.reason = Phase.CANCELLED, ABANDONED


def _job_of(state: State, record: JobRecord) -> JobState:
    """Return a record's job, to be changed."""
    jobs, key, fingerprint = state.jobs, record.job, record.fingerprint
    job = jobs.open.get(fingerprint)
    if job is None:
        state.check(record)  # type: ignore[arg-type]  # a Record, as all of them are
        job = jobs.take(fingerprint)
        if job is None:
            job = jobs.open[fingerprint] = JobState(key, fingerprint)
    elif key == job.key:
        return job  # the key stands for a job already
    # A key stands for what was last submitted under it. A late result of an earlier prompt must
    # not change that, so only a key that stands for nothing gets a job here.
    if key not in jobs.names and jobs.last_fingerprint(key) is None:
        jobs.names[key] = fingerprint
    return job


def _record_departure(state: State, job: JobState, at: datetime) -> None:
    if job.phase is _SUBMITTING and state.leaving:
        state.leaving -= 1
        state.submit_times.append(at)


def _record_all_departures(state: State, at: datetime) -> None:
    """Record that no submit of the run before this moment, killed or not, leaves after it."""
    state.submit_times.extend(repeat(at, min(state.leaving, _SUBMIT_TIMES)))
    state.leaving = 0


def _forget_request(state: State, job: JobState) -> None:
    """Keep the request that a job no longer has: no other job may take it."""
    if job.request_id is not None:
        state.former_requests.append(job.request_id)


_STEPS: dict[type, Callable[[State, Any, int], None]] = {
    LedgerHeader: _header,
    RunStarted: _run_started,
    RunFinished: _run_finished,
    Submitting: _submitting,
    Refused: _refused,
    Submitted: _submitted,
    Unknown: _unknown,
    Succeeded: _succeeded,
    Failed: _failed,
    Cancelled: _cancelled,
    Saved: _saved,
    Resolved: _resolved,
}
_FOLLOWING = frozenset((Refused, Submitted, Unknown, Succeeded, Failed, Cancelled))
_AMOUNTS = dict.fromkeys((Succeeded, Failed, Cancelled, Resolved), "cost_usd") | {
    Submitting: "reserved_usd"
}
