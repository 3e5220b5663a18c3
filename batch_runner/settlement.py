"""What only a person, or the service's word at a person's wish, can settle: resolve and cancel.

Hides which records a decision leaves. What always holds: an unknown job changes only by an explicit
word, and each word leaves a `resolved` record; nothing here submits anything; a request is attached
only if the service knows it and no other job has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import msgspec

from batch_runner.answer import Meaning
from batch_runner.clock import Clock
from batch_runner.errors import AccessRefusedError, ServiceUnavailableError, UsageError
from batch_runner.ledger.file import Ledger
from batch_runner.ledger.job import JobState, Phase
from batch_runner.ledger.lock import owner_of
from batch_runner.ledger.reading import ledger_path, read_ledger
from batch_runner.ledger.state import State
from batch_runner.records import Cancelled, Resolved, Submitting, Unknown, is_request_id
from batch_runner.service import Service

_CLOCK_TOLERANCE = timedelta(minutes=5)

Word = Literal["resubmit", "abandoned"]
"""What a person says of an unknown job: buy it anew, or never mind."""


class UnknownJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job whose POST may have been accepted, with what helps to find it at the service."""

    job: str
    fingerprint: str
    sent_at: datetime
    why: str
    model: str
    input: dict[str, Any]
    reserved_usd: str | None = None


def unknown_jobs(ledger_folder: Path, state: State, *, is_owner: bool = False) -> list[UnknownJob]:
    """Return the unknown jobs in the order they were sent; changes nothing.

    `is_owner` says that this process holds the ledger, and so that no run is alive.
    """
    phases = {Phase.UNKNOWN}
    if is_owner or owner_of(ledger_folder) is None:
        # With no run alive, nobody waits for the answer any more.
        phases.add(Phase.SUBMITTING)
    wanted = {known.fingerprint for known in state.jobs.open.values() if known.phase in phases}
    if not wanted:
        return []
    sent: dict[str, Submitting] = {}
    why: dict[str, str] = {}
    for record in read_ledger(ledger_path(ledger_folder)):
        if isinstance(record, Submitting) and record.fingerprint in wanted:
            sent[record.fingerprint] = record
            why[record.fingerprint] = "the run ended before an answer came"
        elif isinstance(record, Unknown):
            why[record.fingerprint] = record.why
    found = [
        UnknownJob(
            job=record.job,
            fingerprint=fingerprint,
            sent_at=record.at,
            why=why[fingerprint],
            model=record.model,
            input=record.input,
            reserved_usd=None if record.reserved_usd is None else str(record.reserved_usd),
        )
        for fingerprint, record in sent.items()
    ]
    return sorted(found, key=lambda one: one.sent_at)


def choose(jobs: Iterable[UnknownJob], globs: Sequence[str]) -> list[UnknownJob]:
    """Return the jobs whose key is, or matches, one of the globs; UsageError where none does."""
    jobs = list(jobs)
    for glob in globs:
        if not any(_matches(job.job, glob) for job in jobs):
            raise UsageError(
                f"no unknown job is called '{glob}'",
                hint="batch-runner resolve MANIFEST lists the unknown jobs",
            )
    return [job for job in jobs if any(_matches(job.job, glob) for glob in globs)]


def settle(ledger: Ledger, jobs: Iterable[UnknownJob], how: Word, clock: Clock) -> None:
    """Record a person's word: `resubmit` (the next run buys anew) or `abandoned` (never)."""
    for job in jobs:
        ledger.append(Resolved(at=clock.now(), job=job.job, fingerprint=job.fingerprint, how=how))


async def attach(
    service: Service,
    ledger: Ledger,
    job: UnknownJob,
    request_id: str,
    clock: Clock,
    *,
    elsewhere: State | None = None,
) -> str:
    """Record that a request is the job's, once the service has shown that it can be.

    The service does not say which model a request was for, nor with what input; what can be checked
    is that the request exists for this account, that it was not made before the job was sent, and
    that no other job has it. Returns the request's state; raises UsageError, AccessRefusedError, or
    ServiceUnavailableError where the service does not say.
    """
    if not is_request_id(request_id):
        raise UsageError(
            f"'{request_id[:60]}' is not a request_id", hint="letters, digits, '-' and '_' only"
        )
    owner = _owner_of_request(ledger.state, request_id)
    if owner is None and elsewhere is not None:
        owner = _owner_of_request(elsewhere, request_id)
    if owner is not None:
        raise UsageError(
            f"the request {request_id} belongs to the job '{owner.key}' already",
            hint="compare prompt and time on the service's Generations page",
        )
    verdict = await service.result(request_id)
    if verdict.meaning is Meaning.TOKEN_REFUSED:
        raise AccessRefusedError(
            f"the service does not show the request {request_id}: {verdict.reason}",
            hint="use the token of the account that sent the job",
        )
    if verdict.meaning in (Meaning.TRANSIENT, Meaning.THROTTLED, Meaning.NO_BALANCE):
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
    _check_age(job, request_id, verdict.result.created_at if verdict.result else None)
    ledger.append(
        Resolved(
            at=clock.now(),
            job=job.job,
            fingerprint=job.fingerprint,
            how="attached",
            request_id=request_id,
        )
    )
    return str(verdict.meaning)


class CancelOutcome(msgspec.Struct, frozen=True):
    """What became of the wish to cancel one request."""

    job: str
    request_id: str
    cancelled: bool
    message: str


async def cancel(
    service: Service, ledger: Ledger, globs: Sequence[str], clock: Clock
) -> list[CancelOutcome]:
    """Cancel what is still queued at the service; whatever has begun goes on, and is collected."""
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
        raise AccessRefusedError(
            f"the service refused the token: {verdict.message}",
            hint="set RUNCOMFY_API_TOKEN to a valid token of the account that ran this batch",
        )
    if outcome != "cancelled":
        told = {"not_cancellable": "it has begun already; run collects it"}
        message = told.get(outcome or "", verdict.message or "the service did not cancel it")
        return CancelOutcome(known.key, request_id, cancelled=False, message=message)
    # The cancel call only accepts the wish: the result is the service's word that it came true.
    told_by = await service.result(request_id)
    if told_by.meaning is not Meaning.CANCELLED:
        message = "the service accepted the wish, but has not confirmed it; run looks again"
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


def _owner_of_request(state: State, request_id: str) -> JobState | None:
    return next((job for job in state.jobs.each() if job.request_id == request_id), None)


def _check_age(job: UnknownJob, request_id: str, created_at: str | None) -> None:
    try:
        created = datetime.fromisoformat(created_at or "")
    except ValueError:
        return  # the service did not say when; a person has compared it
    if created.tzinfo is not None and created < job.sent_at - _CLOCK_TOLERANCE:
        raise UsageError(
            f"the request {request_id} was made at {created_at}, before the job was sent"
            f" ({job.sent_at:%Y-%m-%dT%H:%M:%SZ})",
            hint="it is another one; compare prompt and time on the service's Generations page",
        )
