"""How a batch stands at one moment, as the live view shows it: plain values."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import msgspec

from batch_runner.ledger.job import Standing
from batch_runner.report.status import Status


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """A saved file, numbered in the order in which it was seen.

    `path` is relative to the output folder; `sha256` is the hash of the file when it was saved.
    """

    number: int
    at: datetime
    job: str
    path: str
    media_type: str
    size_bytes: int
    sha256: str


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A job that is failed or unknown, and why."""

    at: datetime
    job: str
    state: Standing
    what: str


class RunSeen(msgspec.Struct, frozen=True, kw_only=True):
    """The last run of a ledger. `stopped` is the ledger's word, or "killed"; None: it finished."""

    run: str
    pid: int
    host: str
    began_at: datetime
    ended_at: datetime | None
    stopped: str | None
    is_at_work: bool
    is_draining: bool
    folder: str


class Moment(Status, kw_only=True):
    """How a batch stands, as `status` counts it, and how fast it gets on.

    `generation` changes when everything shown before is out of date. `output` is where the pictures
    are; `output_dir` the same if it is a folder of this machine, None for a bucket.
    """

    at: datetime
    name: str
    model: str
    output: str
    output_dir: str | None
    generation: int = 0
    budget_usd: Decimal | None = None
    run_cost_usd: Decimal = Decimal(0)
    rate_per_s: float | None = None
    left_s: float | None = None
    runs: tuple[RunSeen, ...] = ()
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_at_work(self) -> bool:
        """Tell whether any run is at work."""
        return any(run.is_at_work for run in self.runs)

    @property
    def is_draining(self) -> bool:
        """Tell whether every run at work was asked to stop."""
        return self.is_at_work and all(run.is_draining for run in self.runs if run.is_at_work)
