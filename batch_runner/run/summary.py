"""How a run ended: the figures that reports, notices and library callers get.

Pure: counts in, a Summary out. What always holds: the six counts are those that `status` shows, and
add up to the number of jobs.
"""

from __future__ import annotations

import os
from decimal import Decimal

import msgspec

from batch_runner.errors import BatchRunnerError, ExitCode
from batch_runner.ledger.job import Standing, standing_of
from batch_runner.ledger.state import State
from batch_runner.run.batch import Batch
from batch_runner.run.control import Tally
from batch_runner.run.plan import Action
from batch_runner.run.stop import Stop
from batch_runner.run.survey import Survey


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """How a batch stands by its ledger at the end of a run, as `status` counts it.

    The six counts after `jobs` add up to it. `unsaved` counts the done jobs that have no file in
    place, `newly_cancelled` the jobs that this run cancelled, `unknown_beyond` the unknown jobs
    that are no longer in the manifest. `to_buy` counts the jobs that this run meant to buy,
    `bought` those that were, or may have been, accepted. `cost_usd` is what this run bought,
    `spent_usd` what all runs of this ledger bought. `orphans` counts what was collected for jobs
    that are no longer in the manifest. `needed_usd` is the budget that would cover all jobs.
    `place` is the folder or the bucket that the files are in.
    """

    jobs: int
    done: int
    failed: int
    unknown: int
    in_flight: int
    pending: int
    cancelled: int
    newly_cancelled: int = 0
    unsaved: int = 0
    unknown_beyond: int = 0
    to_buy: int = 0
    bought: int = 0
    submitted: int
    cost_usd: Decimal
    spent_usd: Decimal | None = None
    elapsed_s: float
    place: str
    orphans: int = 0
    orphans_left: int = 0
    stop: Stop | None = None
    needed_usd: Decimal | None = None

    @property
    def error(self) -> BatchRunnerError | None:
        """Return the error that ended the run, if one did."""
        error = None if self.stop is None else self.stop.error
        return error if isinstance(error, BatchRunnerError) else None

    @property
    def exit_code(self) -> ExitCode:
        """Return the exit code of `run`."""
        if self.error is not None:
            return self.error.exit_code
        if self.stop is not None and self.stop.reason == "interrupted":
            return ExitCode.INTERRUPTED
        left = self.in_flight or self.pending or self.unsaved or self.orphans_left
        if self.stop is not None or left:
            return ExitCode.STOPPED_EARLY
        # What a person cancelled or abandoned before this run is no news; what ended now is.
        lost = self.failed or self.unknown or self.newly_cancelled
        return ExitCode.SOME_FAILED if lost else ExitCode.DONE


def summary_of(
    batch: Batch,
    tally: Tally,
    survey: Survey,
    state: State,
    *,
    stop: Stop | None,
    spent_before_usd: Decimal,
    elapsed_s: float,
) -> Summary:
    """Return the summary of a run that ended; `survey` was kept up to date while it lasted."""
    is_part = batch.options.only is not None
    needed_usd = None
    if batch.options.shard is None and survey.cost_usd is not None:
        needed_usd = survey.committed_usd + survey.cost_usd
    return Summary(
        **msgspec.structs.asdict(survey.standings),
        newly_cancelled=tally.cancelled,
        unsaved=tally.unsaved,
        unknown_beyond=0 if is_part else _unknown_beyond(state, survey),
        to_buy=survey.counts[Action.SUBMIT],
        bought=tally.submitted + tally.unknown,
        submitted=tally.submitted,
        cost_usd=state.spent_usd - spent_before_usd,
        spent_usd=state.spent_usd,
        elapsed_s=elapsed_s,
        place=batch.bucket or os.path.realpath(batch.output_dir),
        orphans=tally.orphans,
        orphans_left=tally.orphans_left,
        stop=stop,
        needed_usd=needed_usd,
    )


def _unknown_beyond(state: State, survey: Survey) -> int:
    """Return how many jobs are unknown and no longer in the manifest."""
    inside, unknown = survey.standings.unknown, 0
    for known in state.jobs.open.values():
        if standing_of(known, running=False) is Standing.UNKNOWN:
            unknown += 1
            inside -= survey.twins.get(known.fingerprint, 0)
    return unknown - inside
