"""What a person decides about jobs: resolve unknown ones, and cancel queued ones.

Hides which records a decision leaves. What always holds: an unknown job changes only by a person's
decision, and each decision leaves a `resolved` record; nothing here submits anything; a request is
attached only if the service knows it, its input does not differ, and no other job has or had it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from batch_runner.clock import Clock
from batch_runner.errors import ServiceUnavailableError, UsageError
from batch_runner.ledger.file import Ledger
from batch_runner.ledger.job import JobState, Phase
from batch_runner.ledger.lock import owner_of
from batch_runner.ledger.reading import ledger_path, read_ledger
from batch_runner.ledger.state import State
from batch_runner.records import (
    Cancelled,
    Record,
    Resolved,
    Submitted,
    Submitting,
    Unknown,
    is_request_id,
)
from batch_runner.service.answer import Meaning, Result, Verdict
from batch_runner.service.call import Service
from batch_runner.service.echo import compare, difference_text
from batch_runner.service.network import token_refused

CLOCK_TOLERANCE = timedelta(minutes=5)
_CALL = timedelta(minutes=1)
_LEAST_FINGERPRINT = 8
_FINGERPRINT = re.compile(r"[0-9a-f]+")

Word = Literal["resubmit", "abandoned"]
"""What a person decides about an unknown job: buy it again, or give it up."""


class UnknownJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job whose POST may have been accepted, with what helps to find it at the service.

    `lost_at` is the latest time at which the service may have accepted it. `counted_usd` is what
    counts as spent for an abandoned job.
    """

    job: str
    fingerprint: str
    sent_at: datetime
    lost_at: datetime
    why: str
    model: str
    input: dict[str, Any]
    reserved_usd: str | None = None
    abandoned: bool = False
    counted_usd: str | None = None

    @property
    def short(self) -> str:
        """Return the beginning of the fingerprint, which names the job."""
        return self.fingerprint[:_LEAST_FINGERPRINT]


def unknown_jobs(
    ledger_folder: Path, state: State, *, is_owner: bool = False, abandoned: bool = False
) -> list[UnknownJob]:
    """Return the unknown jobs in the order they were sent; changes nothing.

    `is_owner`: this process holds the ledger, so no run is alive. `abandoned` adds the jobs that a
    person gave up: they may turn up after all.
    """
    phases = {Phase.UNKNOWN}
    if is_owner or owner_of(ledger_folder) is None:
        # No run is alive to wait for an answer.
        phases.add(Phase.SUBMITTING)
    wanted = {
        known.fingerprint: known
        for known in state.jobs.open.values()
        if known.phase in phases or (abandoned and known.was_abandoned)
    }
    if not wanted:
        return []
    sent: dict[str, Submitting] = {}
    lost: dict[str, Unknown] = {}
    for record in read_ledger(ledger_path(ledger_folder)):
        if isinstance(record, Submitting) and record.fingerprint in wanted:
            sent[record.fingerprint] = record
            lost.pop(record.fingerprint, None)
        elif isinstance(record, Unknown):
            lost[record.fingerprint] = record
    found = [
        _unknown_job(wanted[fingerprint], intent, lost.get(fingerprint))
        for fingerprint, intent in sent.items()
    ]
    return sorted(found, key=lambda one: one.sent_at)


def _unknown_job(known: JobState, intent: Submitting, lost: Unknown | None) -> UnknownJob:
    reserved_usd = intent.reserved_usd
    return UnknownJob(
        job=intent.job,
        fingerprint=intent.fingerprint,
        sent_at=intent.at,
        lost_at=intent.at + _CALL if lost is None else lost.at,
        why="the run ended before an answer came" if lost is None else lost.why,
        model=intent.model,
        input=intent.input,
        reserved_usd=None if reserved_usd is None else str(reserved_usd),
        abandoned=known.was_abandoned,
        counted_usd=str(known.spent_usd) if known.was_abandoned else None,
    )


def choose(
    jobs: Iterable[UnknownJob], words: Sequence[str], *, may_be_several: bool = False
) -> list[UnknownJob]:
    """Return the jobs that the words name: a key, the beginning of a fingerprint, or a glob.

    A glob leaves out abandoned jobs. Raises UsageError if a word names no job, or several by one
    key, unless it `may_be_several`.
    """
    jobs, chosen = list(jobs), set()
    for word in words:
        named = _named(jobs, word)
        if not named:
            raise UsageError(
                f"no unknown job is called '{word}'",
                hint="batch-runner resolve MANIFEST lists the unknown jobs",
            )
        if len(named) > 1 and _is_exact(named[0], word) and not may_be_several:
            names = ", ".join(f"{job.short} (sent {job.sent_at:%H:%M:%S})" for job in named)
            raise UsageError(
                f"{len(named)} unknown jobs are called '{word}', with different inputs",
                hint=f"name each by its fingerprint: {names}",
            )
        chosen |= {job.fingerprint for job in named}
    return [job for job in jobs if job.fingerprint in chosen]


def _named(jobs: list[UnknownJob], word: str) -> list[UnknownJob]:
    exact = [job for job in jobs if _is_exact(job, word)]
    # A job that is unknown now comes before abandoned ones with the same key.
    return (
        [job for job in exact if not job.abandoned]
        or exact
        or [job for job in jobs if not job.abandoned and fnmatchcase(job.job, word)]
    )


def _is_exact(job: UnknownJob, word: str) -> bool:
    if job.job == word:
        return True
    is_fingerprint = len(word) >= _LEAST_FINGERPRINT and _FINGERPRINT.fullmatch(word)
    return bool(is_fingerprint) and job.fingerprint.startswith(word)


def record_decision(
    ledger: Ledger,
    jobs: Iterable[UnknownJob],
    how: Word,
    clock: Clock,
    *,
    was_bought: bool = True,
) -> None:
    """Record what a person decided: `resubmit` (the next run buys it) or `abandoned` (none does).

    Its reserve counts as spent, unless the person knows that it was not bought.
    """
    cost_usd = None if was_bought else Decimal(0)
    for job in jobs:
        ledger.append(
            Resolved(
                at=clock.now(),
                job=job.job,
                fingerprint=job.fingerprint,
                how=how,
                cost_usd=cost_usd,
            )
        )


class KnownRequest(NamedTuple):
    """A request that a ledger names: its job, and between which times it was made."""

    job: str
    sent_at: datetime | None = None
    accepted_at: datetime | None = None


def known_requests(records: Iterable[Record]) -> dict[str, KnownRequest]:
    """Return every request that ledgers name, including those of earlier attempts."""
    known: dict[str, KnownRequest] = {}
    sent: dict[str, datetime] = {}
    for record in records:
        match record:
            case Submitting():
                sent[record.fingerprint] = record.at
            case Submitted():
                sent_at = sent.pop(record.fingerprint, None)
                known[record.request_id] = KnownRequest(record.job, sent_at, record.at)
            case Resolved(request_id=str(request_id)):
                known.setdefault(request_id, KnownRequest(record.job))
    return known


async def attach(
    service: Service,
    ledger: Ledger,
    job: UnknownJob,
    request_id: str,
    clock: Clock,
    *,
    known: Mapping[str, KnownRequest] | None = None,
) -> str:
    """Record that a request is the job's, once the service has shown that it can be.

    It must exist for this account, be made after the job was sent, belong to no other job, and have
    no input that differs from what was sent. `known` are the requests that the batch's ledgers
    name. Returns the request's state; raises
    UsageError, AccessRefusedError, or ServiceUnavailableError if the service gives no answer.
    """
    if not is_request_id(request_id):
        raise UsageError(
            f"'{request_id[:60]}' is not a request_id", hint="letters, digits, '-' and '_' only"
        )
    taken = known_requests(read_ledger(ledger.path)) if known is None else known
    if request_id in taken:
        raise UsageError(
            f"the request {request_id} belongs to the job '{taken[request_id].job}' already",
            hint="compare prompt and time on the service's Generations page",
        )
    verdict = await service.result(request_id)
    check_answer(request_id, verdict)
    result = verdict.result or Result()
    _check_age(job, request_id, result.created_at)
    _check_echo(job, request_id, result)
    ledger.append(attached(job, request_id, clock))
    return str(verdict.meaning)


def attached(job: UnknownJob, request_id: str, clock: Clock) -> Resolved:
    """Return the record that gives a job its request."""
    return Resolved(
        at=clock.now(),
        job=job.job,
        fingerprint=job.fingerprint,
        how="attached",
        request_id=request_id,
    )


def check_answer(request_id: str, verdict: Verdict) -> None:
    """Raise an error if the service does not show the request."""
    if verdict.meaning is Meaning.TOKEN_REFUSED:
        raise token_refused(f"it does not show {request_id}: {verdict.reason}")
    if verdict.meaning in UNANSWERED:
        raise ServiceUnavailableError(
            f"the service did not say whether it knows the request {request_id}:"
            f" {verdict.reason}: {verdict.message}",
            hint="nothing was changed; run the same command again later",
        )
    if verdict.meaning is Meaning.GONE:
        raise UsageError(
            f"the service does not know the request {request_id}: {verdict.message}",
            hint="nothing was changed; look the id up on the service's Generations page",
        )


UNANSWERED = (Meaning.TRANSIENT, Meaning.THROTTLED, Meaning.NO_BALANCE)
"""Answers that say nothing about a request."""


def _check_echo(job: UnknownJob, request_id: str, result: Result) -> None:
    """Refuse a request whose input is not the job's; raises UsageError."""
    name = compare(job.model, job.input, result).difference
    if name is not None:
        difference = difference_text(name, job.model, job.input, result)
        raise UsageError(
            f"the request {request_id} is not the one of '{job.job}': {difference}",
            hint="nothing was changed; compare prompt and pictures on the service's Generations"
            " page, or let resolve --match find the job",
        )


class CancelOutcome(msgspec.Struct, frozen=True):
    """Whether one request was cancelled, and why not."""

    job: str
    request_id: str
    cancelled: bool
    message: str


async def cancel(
    service: Service, ledger: Ledger, globs: Sequence[str], clock: Clock
) -> list[CancelOutcome]:
    """Cancel what is still queued at the service; what has begun goes on, and is collected."""
    outcomes = []
    for known in list(ledger.state.jobs.open.values()):
        chosen = not globs or any(_matches(known.key, glob) for glob in globs)
        if known.phase is Phase.IN_FLIGHT and known.request_id is not None and chosen:
            outcomes.append(await _cancel_one(service, ledger, known, known.request_id, clock))
    return outcomes


async def _cancel_one(
    service: Service, ledger: Ledger, known: JobState, request_id: str, clock: Clock
) -> CancelOutcome:
    verdict, outcome = await service.cancel(request_id)
    if verdict.meaning is Meaning.TOKEN_REFUSED:
        raise token_refused(verdict.message)
    if outcome != "cancelled":
        told = {"not_cancellable": "it has begun already; run collects it"}
        message = told.get(outcome or "", verdict.message or "the service did not cancel it")
        return CancelOutcome(known.key, request_id, cancelled=False, message=message)
    # The cancel call is only a request: the result shows whether the service did it.
    told_by = await service.result(request_id)
    if told_by.meaning is not Meaning.CANCELLED:
        message = "the service has not confirmed that it cancelled; run checks again"
        return CancelOutcome(known.key, request_id, cancelled=False, message=message)
    ledger.append(
        Cancelled(
            at=clock.now(),
            job=known.key,
            fingerprint=known.fingerprint,
            request_id=request_id,
            cost_usd=told_by.result.cost_usd if told_by.result else None,
        )
    )
    return CancelOutcome(known.key, request_id, cancelled=True, message="cancelled")


def _matches(key: str, glob: str) -> bool:
    return key == glob or fnmatchcase(key, glob)


def _check_age(job: UnknownJob, request_id: str, created_at: str | None) -> None:
    try:
        created = datetime.fromisoformat(created_at or "")
    except ValueError:
        return  # the service gives no time; a person has compared it
    if created.tzinfo is not None and created < job.sent_at - CLOCK_TOLERANCE:
        raise UsageError(
            f"the request {request_id} was made at {created_at}, before the job was sent"
            f" ({job.sent_at:%Y-%m-%dT%H:%M:%SZ})",
            hint="it is another one; compare prompt and time on the service's Generations page",
        )
