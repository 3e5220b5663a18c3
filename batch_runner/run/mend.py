"""Files that are missing or damaged, put back: from a second name, else by downloading.

Hides which of the two. What always holds: nothing is bought.
"""

from __future__ import annotations

from collections.abc import Iterable

from batch_runner.files.verification import Difference
from batch_runner.run.batch import Batch
from batch_runner.run.budget import own_limits
from batch_runner.run.plan import Action, Planned, orphan_job, reusable
from batch_runner.run.pool import Runner
from batch_runner.run.setting import Notice, ignore, open_setting


async def mend(batch: Batch, differences: Iterable[Difference], notice: Notice = ignore) -> None:
    """Put files back; raises BatchRunnerError."""
    async with open_setting(batch, notice=notice) as setting:
        ledger = setting.ledger
        jobs = {(one.fingerprint, one.stem): one for one in differences}
        planned, seen, in_place = [], set[str](), batch.storage.is_in_place
        for one in jobs.values():
            known, is_twin = ledger.state.jobs[one.fingerprint], one.fingerprint in seen
            job = orphan_job(known, one.stem)
            # A second name first, because URLs expire.
            if is_twin or reusable(known, in_place) is not None:
                planned.append(Planned(job, Action.REUSE, f"same as {known.key}", known))
            else:
                planned.append(Planned(job, Action.DOWNLOAD, "file missing or damaged", known))
            seen.add(one.fingerprint)
        await Runner(setting, own_limits(batch, ledger.header)).run(planned, ())
        stop = setting.ending.stop
        if stop is not None and stop.error is not None:
            raise stop.error
