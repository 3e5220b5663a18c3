"""Files that are missing or damaged, put back: from a second name, else by downloading.

Hides which of the two. What always holds: nothing is bought.
"""

from __future__ import annotations

from collections.abc import Iterable

from batch_runner.clock import Clock
from batch_runner.files.verification import Difference
from batch_runner.ledger.job import JobState
from batch_runner.run.batch import Batch
from batch_runner.run.budget import own_limits
from batch_runner.run.plan import Action, FileCheck, Planned, orphan_job, reusable
from batch_runner.run.setup import Notice, ignore, new_runner, open_downloads, open_ledger


async def mend(batch: Batch, differences: Iterable[Difference], notice: Notice = ignore) -> None:
    """Put files back; raises BatchRunnerError."""
    clock = Clock()
    async with open_ledger(batch, notice, clock) as ledger, open_downloads(batch) as downloads:
        jobs = {(one.fingerprint, one.stem): one for one in differences}
        planned, seen, in_place = [], set[str](), batch.storage.is_in_place
        for one in jobs.values():
            known, is_twin = ledger.state.jobs[one.fingerprint], one.fingerprint in seen
            planned.append(_plan(one, known, in_place, is_twin=is_twin))
            seen.add(one.fingerprint)
        limits = own_limits(batch, ledger.header)
        runner = new_runner(batch, ledger, downloads, limits, clock, listener=ignore, notice=notice)
        await runner.run(planned, ())
        if runner.control.stop is not None and runner.control.stop.error is not None:
            raise runner.control.stop.error


def _plan(one: Difference, known: JobState, in_place: FileCheck, *, is_twin: bool) -> Planned:
    """Plan to put one job's files back; a second name first, because URLs expire."""
    job = orphan_job(known, one.stem)
    if is_twin or reusable(known, in_place) is not None:
        return Planned(job, Action.REUSE, f"same as {known.key}", known)
    return Planned(job, Action.DOWNLOAD, "file missing or damaged", known)
