"""How a batch stands at one moment, for the page and the terminal: plain values."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import msgspec

from batch_runner.ledger.job import Standing
from batch_runner.report.status import Status


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A job that failed or became unknown, and why."""

    at: datetime
    job: str
    state: Standing
    what: str


class RunSeen(msgspec.Struct, frozen=True, kw_only=True):
    """The last run of one ledger. A run that was killed, or is at work, has no `ended_at`."""

    run: str
    pid: int
    host: str
    began_at: datetime
    ended_at: datetime | None
    stopped: str | None
    is_at_work: bool
    is_draining: bool


class Moment(Status, kw_only=True):
    """A status, with what changes from one look to the next.

    `generation` rises when the jobs are no longer the same: another manifest, or another ledger.
    `run_cost_usd` is what the last runs cost; `left_s` assumes the rate of the last jobs; `notes`
    are for a person to read.
    """

    at: datetime
    name: str
    model: str
    output: str
    generation: int
    budget_usd: Decimal | None
    run_cost_usd: Decimal = Decimal(0)
    rate_per_s: float | None = None
    left_s: float | None = None
    runs: tuple[RunSeen, ...] = ()
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_at_work(self) -> bool:
        """Tell whether a run is at work."""
        return any(run.is_at_work for run in self.runs)

    @property
    def is_draining(self) -> bool:
        """Tell whether all runs at work were asked to drain."""
        return self.is_at_work and all(run.is_draining for run in self.runs if run.is_at_work)
