"""How a batch stands by its ledger alone: without asking the service, without changing anything.

Hides when jobs can be counted without expanding the manifest. What always holds: the six counts are
disjoint and add up to the number of jobs; after a run they equal those of its summary.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import msgspec

from batch_runner.ledger.job import JobState, Standing, Standings, standing_of
from batch_runner.ledger.state import State
from batch_runner.run.batch import Batch
from batch_runner.run.planning import jobs_of_ledger
from batch_runner.shards.ledgers import Running


class Status(Standings, kw_only=True):
    """How a batch stands by its ledger, and the money.

    `unpriced` counts purchases that are in no amount because nobody knows their price,
    `unknown_beyond` the unknown jobs that are no longer in the manifest. `reasons` counts failed
    and unknown jobs.
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
    jobs = jobs_of_ledger(batch, state)
    made = batch.jobs() if jobs is None else ()
    found = count_jobs((job.fingerprint for job in made), state, running)
    if jobs is not None or batch.options.only is not None:
        found.unknown_beyond = 0
    if jobs is not None:
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


def count_jobs(fingerprints: Iterable[str], state: State, running: Running) -> Status:
    """Count jobs by how they stand; `unknown_beyond` counts unknown jobs that are not among them.

    `running` says which ledgers a run holds.
    """
    found = Status(cost_usd=state.spent_usd, reserved_usd=state.reserved_usd)
    found.unpriced = state.money.unpriced
    beyond = {
        known.fingerprint
        for known in state.jobs.open.values()
        if standing_of(known, running=running.has(known.fingerprint)) is Standing.UNKNOWN
    }
    for fingerprint in fingerprints:
        if state.jobs.is_finished(fingerprint):
            found.add(Standing.DONE)
            continue
        beyond.discard(fingerprint)
        _count(found, state.job(fingerprint), running=running.has(fingerprint))
    found.unknown_beyond = len(beyond)
    return found


def _count(found: Status, known: JobState | None, *, running: bool) -> None:
    standing = standing_of(known, running=running)
    found.add(standing)
    if standing in (Standing.FAILED, Standing.UNKNOWN):
        told = known.reason if known is not None and standing is Standing.FAILED else None
        reason = told or standing
        found.reasons[reason] = found.reasons.get(reason, 0) + 1


BY_URGENCY = (
    *(Standing.UNKNOWN, Standing.FAILED, Standing.IN_FLIGHT),
    *(Standing.PENDING, Standing.CANCELLED, Standing.DONE),
)
"""How jobs can stand, with those first that need a person."""
