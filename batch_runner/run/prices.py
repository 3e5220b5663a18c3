"""What each job costs: known, learned from the costs that the service reported, or not known.

Hides what a price depends on and where it is known from. What always holds: a job counts at the
highest cost that was reported for its kind, and never below its known price; what was bought while
the price was not known counts at the price that is known now. A kind is a model with the inputs
that may change the price.

Not promised: anything about a service that reports one cost and bills another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from batch_runner.models.model import Model
from batch_runner.records import (
    Cancelled,
    Failed,
    Job,
    Record,
    Refused,
    Resolved,
    Submitting,
    Succeeded,
)

_ZERO = Decimal(0)
_Entry = tuple[str | None, Decimal | None]
"""The kind of a job, and what was reserved for it."""


class _Tab:
    """What jobs cost so far: the reported costs, and the reserves of all others by their kind."""

    def __init__(self) -> None:
        self.reported_usd = _ZERO
        self.reserves: Counter[_Entry] = Counter()
        self._open: dict[str, _Entry] = {}

    def take(self, record: Record, entry: _Entry | None) -> None:
        match record:
            case Submitting() if entry is not None:
                # An unknown job that is sent again counts twice: it may be paid for twice.
                self._open[record.fingerprint] = entry
                self.reserves[entry] += 1
            case Refused():
                self._close(record.fingerprint, _ZERO)
            case Succeeded() | Failed():
                self._close(record.fingerprint, record.cost_usd)
            case Cancelled():
                self._close(record.fingerprint, record.cost_usd or _ZERO)
            case Resolved() if record.cost_usd is not None:
                # A person knows better what was reserved for an unknown outcome.
                self._close(record.fingerprint, record.cost_usd)

    def _close(self, fingerprint: str, cost_usd: Decimal | None) -> None:
        """Replace a job's reserve by its cost, if there is one."""
        entry = self._open.pop(fingerprint, None)
        if entry is not None and cost_usd is not None:
            self.reported_usd += cost_usd
            self.reserves[entry] -= 1


class Prices:
    """The prices of a batch's jobs. `take` must get every record that is written.

    - `models`: may still change.
    - `history`: reads all records of the ledgers; called once, when first needed.
    - `is_own`: tells whether a fingerprint is in the ledger that the budget covers.
    - `night_of`: returns when the night of a moment began; None without a budget for each night.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        history: Callable[[], Iterable[Record]],
        *,
        is_own: Callable[[str], bool],
        night_of: Callable[[datetime], datetime] | None = None,
    ) -> None:
        self._models = models
        self._history: Callable[[], Iterable[Record]] | None = history
        self._is_own = is_own
        self._night_of = night_of
        self._kinds: dict[str, str] = {}
        self._highest: dict[str, Decimal] = {}
        self._examples: dict[str, tuple[str, dict[str, Any]]] = {}
        self._all = _Tab()
        self._night = _Tab()
        self._night_began: datetime | None = None

    def look_back(self) -> None:
        """Learn from the records of the ledgers, if that was not done yet."""
        history, self._history = self._history, None
        for record in history() if history is not None else ():
            self._learn(record)

    def take(self, record: Record) -> None:
        """Learn from a record that was just written."""
        # Until the ledgers are read, there is no need: it will be found there.
        if self._history is None:
            self._learn(record)

    def estimate_usd(self, job: Job) -> Decimal | None:
        """Return what a job is expected to cost, known or learned; else None."""
        model = self._models[job.model]
        known_usd = model.estimate_usd(job.input)
        if known_usd is None:
            self.look_back()
        if not self._highest:
            return known_usd
        learned_usd = self._highest.get(model.price_class(job.input))
        return learned_usd if known_usd is None else max(known_usd, learned_usd or _ZERO)

    def least_usd(self, job: Job) -> Decimal | None:
        """Return the least that a job costs, or None if not even that is known."""
        return self._models[job.model].least_usd(job.input)

    def short_usd(self) -> Decimal:
        """Return how much more than the ledger counts all that was bought may cost.

        What it counts for nothing is not in it (see `State.count_at`).
        """
        return sum(
            (
                count * (self._at_least(entry) - entry[1])
                for entry, count in self._all.reserves.items()
                if entry[1] is not None
            ),
            _ZERO,
        )

    def night_usd(self, now: datetime) -> Decimal:
        """Return what was bought in the night of a moment, reserves included."""
        self._begin_night(now)
        reserves = (count * self._at_least(entry) for entry, count in self._night.reserves.items())
        return self._night.reported_usd + sum(reserves, _ZERO)

    def _at_least(self, entry: _Entry) -> Decimal:
        """Return a reserve, or what is known of the price of its kind if that is more."""
        kind, reserved_usd = entry
        if kind is None:
            return reserved_usd or _ZERO
        model_id, input_ = self._examples[kind]
        model = self._models[model_id]
        price_usd = self._highest.get(kind) or model.estimate_usd(input_)
        if price_usd is None:
            price_usd = model.most_usd(input_)
        return max(reserved_usd or _ZERO, price_usd or _ZERO)

    def _begin_night(self, now: datetime) -> None:
        began = now if self._night_of is None else self._night_of(now)
        if self._night_began is None or began > self._night_began:
            self._night, self._night_began = _Tab(), began

    def _learn(self, record: Record) -> None:
        entry: _Entry | None = None
        if isinstance(record, Submitting):
            model, kind = self._models.get(record.model), None
            if model is not None:
                kind = self._kinds[record.fingerprint] = model.price_class(record.input)
                self._examples.setdefault(kind, (record.model, record.input))
            entry = (kind, record.reserved_usd)
        elif isinstance(record, Succeeded):
            self._learn_cost(self._kinds.pop(record.fingerprint, None), record.cost_usd)
        elif isinstance(record, Failed | Cancelled | Refused):
            self._kinds.pop(record.fingerprint, None)
        elif not isinstance(record, Resolved):
            return
        if self._is_own(record.fingerprint):
            self._all.take(record, entry)
            if self._night_of is not None:
                if entry is not None:
                    self._begin_night(record.at)
                self._night.take(record, entry)

    def _learn_cost(self, kind: str | None, cost_usd: Decimal | None) -> None:
        # A cost of nothing says as little as none: the next job may well cost something.
        if kind is not None and cost_usd:
            self._highest[kind] = max(cost_usd, self._highest.get(kind, _ZERO))
