"""How a batch stands by its ledger alone: nothing is asked of the service, nothing is changed.

Hides which phase of a job counts as what. What always holds: the six counts are disjoint and add up
to the number of jobs.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from batch_runner.batch import Batch
from batch_runner.ledger.job import JobState, Phase


class Status(msgspec.Struct, kw_only=True):
    """How a batch stands by its ledger; the six counts after `jobs` are disjoint and add up.

    `unpriced` counts the purchases that are in no amount, because nobody knows what they cost.
    """

    jobs: int = 0
    done: int = 0
    failed: int = 0
    unknown: int = 0
    in_flight: int = 0
    pending: int = 0
    cancelled: int = 0
    cost_usd: Decimal | None = None
    reserved_usd: Decimal | None = None
    unpriced: int = 0
    stopped: str | None = None
    reasons: dict[str, int] = {}


def status(batch: Batch) -> Status:
    """Count the manifest's jobs by how they stand; needs no network, changes nothing."""
    state = batch.replay()
    running = batch.ledgers.running()
    found = Status(cost_usd=state.spent_usd, reserved_usd=state.reserved_usd, reasons={})
    found.unpriced = state.unpriced
    jobs = batch.jobs_of_ledger(state)
    if jobs is None:
        for job in batch.jobs():
            found.jobs += 1
            _count(found, state.job(job.fingerprint), running=running.has(job.fingerprint))
    else:
        found.jobs, found.done = jobs, state.jobs.finished
        found.pending = jobs - len(state.jobs)
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
    column = column_of(known, running=running)
    setattr(found, column, getattr(found, column) + 1)
    if column in ("failed", "unknown") and known is not None:
        reason = (known.reason if column == "failed" else None) or column
        found.reasons[reason] = found.reasons.get(reason, 0) + 1


def column_of(known: JobState | None, *, running: bool) -> str:
    """Return as what a job counts, by what the ledger knows of it."""
    match None if known is None else known.phase:
        case None | Phase.RELEASED:
            return "pending"
        case Phase.REFUSED:
            return "pending" if known is not None and known.again else "failed"
        case Phase.SUBMITTING:
            # While its run lives, the answer is on its way; after that nobody waits for it.
            return "in_flight" if running else "unknown"
        case Phase.IN_FLIGHT | Phase.SUCCEEDED:
            return "in_flight"
        case phase:
            return str(phase)
