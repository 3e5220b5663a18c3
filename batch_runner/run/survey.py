"""The plan in figures: what a run would do, what it would cost, and what a person should look at.

What always holds: what a survey keeps does not grow with the number of jobs, except for equal jobs
and for those whose outputs wait to be collected or downloaded.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from decimal import Decimal

import msgspec

from batch_runner.files.bucket import is_bucket_url
from batch_runner.jobs.product import Tally
from batch_runner.ledger.job import Standing, Standings, standing_of
from batch_runner.ledger.verdict import Redo
from batch_runner.records import Job
from batch_runner.run.plan import ANOTHER_ADDRESS, Action, Planned
from batch_runner.table.distinct import Distinct
from batch_runner.text.path import Destinations


class ModelShare(msgspec.Struct):
    """One model's part in a plan."""

    jobs: int = 0
    submits: int = 0
    cost_usd: Decimal | None = Decimal(0)
    least_usd: Decimal | None = Decimal(0)


class Survey:
    """The plan in figures: counts by action and reason, examples, and what it would cost.

    Jobs:
    - `standings`: how the jobs stand by the ledger; a run keeps it up to date.
    - `known`: how many fingerprints of the manifest the ledger knows; it may know others, of jobs
      that have left the manifest.
    - `twins`: by fingerprint, how many jobs are equal to an earlier one.
    - `moved`: jobs that the ledger knows by another key or path.
    - `with_files`: jobs with pictures on this machine; `uploads`: the pictures that submits need
      in a bucket, each counted once.
    - `readdressed`: submits of what was paid for under another address; `address_pair`: the first.
    - `strays`: files that no ledger knows, where submits would write; `stray` is the first.
    - `tally`: what became of a table's rows; `redos`: what is done again, as of this plan.

    Money:
    - `models`: each model's share of jobs and cost.
    - `cost_usd`: what all submits would cost, and `least_usd`, the least; None if unknown.
    - `unpriced`: the first submit whose price is not known.
    - `committed_usd`: what was spent and reserved before.
    - `left_usd`: what is left of the budget, if there is one; `covered`: how many of the submits,
      in order, it covers.

    Of the jobs to submit or reuse, a few thousand are kept, so that they need not be made again.
    """

    EXAMPLES = 3
    KEPT = 10_000

    def __init__(self, redos: Mapping[str, Redo] | None = None) -> None:
        self.redos = redos or {}
        self.counts: dict[Action, int] = dict.fromkeys(Action, 0)
        self.reasons: Counter[tuple[Action, str]] = Counter()
        self.examples: defaultdict[tuple[Action, str], list[str]] = defaultdict(list)
        self.models: defaultdict[str, ModelShare] = defaultdict(ModelShare)
        self.prompts: dict[str, Job] = {}
        self.standings = Standings()
        self.known = 0
        self.twins: Counter[str] = Counter()
        self.moved = 0
        self.with_files = 0
        self.waiting: dict[str, Planned] = {}
        self._kept: list[Planned] | None = []
        self.tally = Tally()
        self.uploads = 0
        self.uploads_bytes = 0
        self._seen_files = Distinct()
        self.destinations = Destinations()
        self.readdressed = 0
        self.address_pair: tuple[str, str] | None = None
        self.strays = 0
        self.stray = ""
        self.unpriced: Job | None = None
        self.cost_usd: Decimal | None = Decimal(0)
        self.least_usd: Decimal | None = Decimal(0)
        self.committed_usd = Decimal(0)
        self.left_usd: Decimal | None = None
        self.covered = 0

    @classmethod
    def of_finished(cls, jobs: int) -> Survey:
        """Return the figures of so many jobs that are all done, without examples."""
        survey = cls()
        survey.known = survey.counts[Action.SKIP] = jobs
        survey.reasons[Action.SKIP, "done"] = jobs
        survey.standings.add(Standing.DONE, jobs)
        return survey

    def add(
        self, planned: Planned, estimate_usd: Decimal | None, least_usd: Decimal | None = None
    ) -> None:
        """Count one job; `estimate_usd` is what submitting it would cost, or None if unknown.

        `least_usd` is the least that it costs, if no more than that is known.
        """
        job, action, reason = planned.job, planned.action, planned.reason
        known = None if planned.is_of_another else planned.state
        self.known += known is not None and not planned.is_twin
        self.standings.add(standing_of(known, running=False))
        if planned.is_twin:
            self.twins[job.fingerprint] += 1
        self.moved += planned.is_moved
        self.with_files += job.files != ()
        if action is Action.REUSE and not planned.is_twin and reason != ANOTHER_ADDRESS:
            reason = "bought under another name"
        kind = (action, reason)
        self.counts[action] += 1
        count = self.reasons[kind] = self.reasons[kind] + 1
        if count <= self.EXAMPLES:
            self.examples[kind].append(job.key)
        share = self.models[job.model]
        share.jobs += 1
        self.prompts.setdefault(job.prompt_id or job.key, job)
        if action in (Action.COLLECT, Action.DOWNLOAD):
            self.waiting.setdefault(job.fingerprint, planned)
        elif action in (Action.SUBMIT, Action.REUSE) and self._kept is not None:
            self._kept.append(planned)
            if len(self._kept) > self.KEPT:
                self._kept = None
        if action is Action.SUBMIT:
            if planned.readdressed is not None:
                self.readdressed += 1
                self.address_pair = self.address_pair or planned.readdressed
            for file in job.files:
                if self._seen_files.add(file.url) and is_bucket_url(file.url):
                    self.uploads += 1
                    self.uploads_bytes += file.size_bytes
            self.destinations.add(job.path)
            if estimate_usd is None:
                self.unpriced = self.unpriced or job
            else:
                least_usd = estimate_usd
            share.submits += 1
            share.cost_usd = _sum(share.cost_usd, estimate_usd)
            share.least_usd = _sum(share.least_usd, least_usd)
            self.cost_usd = _sum(self.cost_usd, estimate_usd)
            self.least_usd = _sum(self.least_usd, least_usd)
            if self.left_usd is not None and self.cost_usd is not None:
                self.covered += self.cost_usd <= self.left_usd

    @property
    def fresh(self) -> list[Planned] | None:
        """Return what to submit or reuse, in order; None if that must be planned again in its turn.

        That is so if there are more jobs than can be kept, if jobs are equal (what to do with one
        depends on how the other ends), or if pictures on this machine are sent (they may change).
        """
        return None if self.twins or self.with_files else self._kept


def _sum(one_usd: Decimal | None, other_usd: Decimal | None) -> Decimal | None:
    """Add two amounts; unknown if one of them is."""
    return None if one_usd is None or other_usd is None else one_usd + other_usd
