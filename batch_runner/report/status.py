"""How a batch stands by its ledger alone: nothing is asked of the service, nothing is changed.

Hides when the jobs need not be made to be tracked. What always holds: the six counts are disjoint
and add up to the number of jobs; after a run they are those of its summary.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from batch_runner.ledger.job import JobState, Standing, Standings, standing_of
from batch_runner.run.basis import jobs_of_ledger
from batch_runner.run.batch import Batch

RARE = frozenset(("unpriced", "unknown_beyond"))
"""Counts that are nearly always 0."""


class Status(Standings, kw_only=True):
    """How a batch stands by its ledger, and the money.

    `unpriced` counts the purchases that are in no amount, because nobody knows what they cost,
    `unknown_beyond` the unknown jobs that are no longer in the manifest.
    """

    cost_usd: Decimal | None = None
    reserved_usd: Decimal | None = None
    unpriced: int = 0
    unknown_beyond: int = 0
    stopped: str | None = None
    reasons: dict[str, int] = msgspec.field(default_factory=dict)


def status(batch: Batch) -> Status:
    """Count the manifest's jobs by how they stand; needs no network, changes nothing."""
    state = batch.replay()
    running = batch.ledgers.running()
    found = Status(cost_usd=state.spent_usd, reserved_usd=state.reserved_usd)
    found.unpriced = state.unpriced
    jobs = jobs_of_ledger(batch, state)
    if jobs is None:
        unknown = {
            known.fingerprint
            for known in state.jobs.open.values()
            if standing_of(known, running=running.has(known.fingerprint)) is Standing.UNKNOWN
        }
        for job in batch.jobs():
            unknown.discard(job.fingerprint)
            _count(found, state.job(job.fingerprint), running=running.has(job.fingerprint))
        found.unknown_beyond = 0 if batch.options.only is not None else len(unknown)
    else:
        found.add(Standing.DONE, state.jobs.finished)
        found.add(Standing.PENDING, jobs - len(state.jobs))
        for known in state.jobs.open.values():
            _count(found, known, running=bool(running))
    if running:
        found.stopped = "running"
    elif state.run_finished is not None:
        found.stopped = state.run_finished.stopped
    elif state.run_started is not None:
        found.stopped = "killed"
    return found


def _count(found: Status, known: JobState | None, *, running: bool) -> None:
    standing = standing_of(known, running=running)
    found.add(standing)
    if standing in (Standing.FAILED, Standing.UNKNOWN) and known is not None:
        reason = (known.reason if standing is Standing.FAILED else None) or standing
        found.reasons[reason] = found.reasons.get(reason, 0) + 1
