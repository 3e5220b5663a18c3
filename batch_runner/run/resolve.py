"""What a person decides about jobs: resolve unknown ones, and cancel queued ones.

Hides which records a decision leaves. What always holds: an unknown job changes only by a person's
decision, and each decision leaves a `resolved` record; nothing here submits anything; a request is
attached only if the service knows it, its input does not differ, and no other job has or had it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import msgspec

from batch_runner.clock import Clock
from batch_runner.errors import ServiceUnavailableError, UsageError
from batch_runner.jobs.selection import Selection
from batch_runner.ledger.file import Ledger
from batch_runner.ledger.job import JobState, Phase
from batch_runner.ledger.lock import owner_of
from batch_runner.ledger.reading import ledger_path, read_intent
from batch_runner.ledger.state import State
from batch_runner.records import Cancelled, Record, Resolved, Submitted, is_request_id
from batch_runner.service.answer import Meaning, Result
from batch_runner.service.call import Service
from batch_runner.service.echo import compare
from batch_runner.service.network import token_refused

CLOCK_TOLERANCE = timedelta(minutes=5)
TIME = "%Y-%m-%d %H:%M:%S"
_LEAST_FINGERPRINT = 8
_HINT = "nothing was changed; compare prompt and time on the service's Generations page"

Word = Literal["resubmit", "abandoned"]
"""What a person decides about an unknown job: buy it again, or give it up."""


class UnknownJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job whose POST may have been accepted, with what helps to find it at the service.

    `counted_usd` is what counts as spent for an abandoned job, which may turn up after all.
    """

    job: str
    fingerprint: str
    sent_at: datetime
    why: str
    model: str
    input: dict[str, Any]
    reserved_usd: Decimal | None = None
    abandoned: bool = False
    counted_usd: Decimal | None = None

    @property
    def short(self) -> str:
        """Return the beginning of the fingerprint, which names the job."""
        return self.fingerprint[:_LEAST_FINGERPRINT]


def unknown_jobs(ledger_folder: Path, state: State, *, is_owner: bool = False) -> list[UnknownJob]:
    """Return the unknown and the abandoned jobs in the order they were sent; changes nothing.

    `is_owner`: this process holds the ledger, so no run is alive.
    """
    phases = {Phase.UNKNOWN}
    if is_owner or owner_of(ledger_folder) is None:
        # No run is alive to wait for an answer.
        phases.add(Phase.SUBMITTING)
    path = ledger_path(ledger_folder)
    found = [
        UnknownJob(
            job=sent.job,
            fingerprint=known.fingerprint,
            sent_at=sent.at,
            why=known.message or "the run ended before an answer came",
            model=sent.model,
            input=sent.input,
            reserved_usd=sent.reserved_usd,
            abandoned=known.was_abandoned,
            counted_usd=known.spent_usd if known.was_abandoned else None,
        )
        for known in state.jobs.open.values()
        if known.phase in phases or known.was_abandoned
        if (sent := read_intent(path, known)) is not None
    ]
    return sorted(found, key=lambda one: one.sent_at)


def choose(jobs: Iterable[UnknownJob], words: Sequence[str]) -> list[UnknownJob]:
    """Return the jobs that the words name: a key, the beginning of a fingerprint, or a glob.

    A glob leaves out abandoned jobs. Raises UsageError if a word names no job.
    """
    jobs, chosen = list(jobs), set()
    for word in words:
        is_long = len(word) >= _LEAST_FINGERPRINT
        exact = [
            one for one in jobs if one.job == word or (is_long and one.fingerprint.startswith(word))
        ]
        named = [one for one in exact if not one.abandoned] or exact
        named = named or [one for one in jobs if not one.abandoned and fnmatchcase(one.job, word)]
        if not named:
            raise UsageError(
                f"no unknown job is called '{word}'",
                hint="batch-runner resolve MANIFEST lists the unknown jobs",
            )
        chosen |= {one.fingerprint for one in named}
    return [one for one in jobs if one.fingerprint in chosen]


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
        ledger.append(Resolved(**_about(job, clock), how=how, cost_usd=cost_usd))


def known_requests(records: Iterable[Record]) -> dict[str, str]:
    """Return the job of every request that ledgers name, including those of earlier attempts."""
    return {
        record.request_id: record.job
        for record in records
        if isinstance(record, Submitted | Resolved) and record.request_id is not None
    }


async def attach(
    service: Service,
    ledger: Ledger,
    job: UnknownJob,
    request_id: str,
    clock: Clock,
    *,
    known: Mapping[str, str],
) -> str:
    """Record that a request is the job's, once the service has shown that it can be.

    It must exist for this account, be made after the job was sent, belong to no other job, and have
    no input that differs from what was sent. `known` are the requests that the batch's ledgers
    name. Returns the request's state; raises UsageError, AccessRefusedError, or
    ServiceUnavailableError if the service gives no answer.
    """
    if not is_request_id(request_id):
        raise UsageError(
            f"'{request_id[:60]}' is not a request_id", hint="letters, digits, '-' and '_' only"
        )
    if request_id in known:
        what = f"the request {request_id} belongs to the job '{known[request_id]}' already"
        raise UsageError(what, hint=_HINT)
    verdict = await service.result(request_id)
    if verdict.meaning is Meaning.TOKEN_REFUSED:
        raise token_refused(f"it does not show {request_id}: {verdict.reason}")
    if verdict.meaning in SAY_NOTHING:
        raise ServiceUnavailableError(
            f"the service did not say whether it knows the request {request_id}:"
            f" {verdict.reason}: {verdict.message}",
            hint="nothing was changed; run the same command again later",
        )
    if verdict.meaning is Meaning.GONE:
        what = f"the service does not know the request {request_id}: {verdict.message}"
        raise UsageError(what, hint=_HINT)
    result = verdict.result or Result()
    made_at = read_time(result.created_at)
    if made_at is not None and made_at < job.sent_at - CLOCK_TOLERANCE:
        what = f"the request {request_id} was made at {made_at:{TIME}}, before the job was sent"
        raise UsageError(f"{what} ({job.sent_at:{TIME}})", hint=_HINT)
    difference = compare(job.model, job.input, result).difference
    if difference is not None:
        what = f"the request {request_id} is not the one of '{job.job}': {difference}"
        raise UsageError(what, hint=_HINT)
    ledger.append(attached(job, request_id, clock))
    return str(verdict.meaning)


def attached(job: UnknownJob, request_id: str, clock: Clock) -> Resolved:
    """Return the record that gives a job its request."""
    return Resolved(**_about(job, clock), how="attached", request_id=request_id)


def _about(job: UnknownJob, clock: Clock) -> dict[str, Any]:
    return {"at": clock.now(), "job": job.job, "fingerprint": job.fingerprint}


def read_time(text: str | None) -> datetime | None:
    """Read a time of the service, as UTC if it names no zone; None if it is no time."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


SAY_NOTHING = (Meaning.TRANSIENT, Meaning.THROTTLED, Meaning.NO_BALANCE)
"""Answers that say nothing about a request."""


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
    outcomes, chosen = [], Selection(globs or None)
    for known in list(ledger.state.jobs.open.values()):
        request_id = known.request_id
        if known.phase is Phase.IN_FLIGHT and request_id is not None and known.key in chosen:
            why = await _cancel_one(service, ledger, known, request_id, clock)
            outcomes.append(CancelOutcome(known.key, request_id, why is None, why or "cancelled"))
    return outcomes


async def _cancel_one(
    service: Service, ledger: Ledger, known: JobState, request_id: str, clock: Clock
) -> str | None:
    """Cancel a request; return why it was not cancelled, if it was not."""
    verdict, outcome = await service.cancel(request_id)
    if verdict.meaning is Meaning.TOKEN_REFUSED:
        raise token_refused(verdict.message)
    if outcome != "cancelled":
        told = {"not_cancellable": "it has begun already; run collects it"}
        return told.get(outcome or "", verdict.message or "the service did not cancel it")
    # The cancel call is only a request: the result shows whether the service did it.
    told_by = await service.result(request_id)
    if told_by.meaning is not Meaning.CANCELLED:
        return "the service has not confirmed that it cancelled; run checks again"
    ledger.append(
        Cancelled(
            at=clock.now(),
            job=known.key,
            fingerprint=known.fingerprint,
            request_id=request_id,
            cost_usd=told_by.result.cost_usd if told_by.result else None,
        )
    )
    return None
