"""What each job costs: known, learned from the costs that the service reported, or not known.

Hides what a price depends on and where it is known from. What always holds: a job counts at the
highest cost that was reported for its kind, and never below its known price; what was bought while
the price was not known counts at the price that is known now. A kind is a model with the inputs
that may change the price.

Not promised: anything about a service that reports one cost and bills another.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

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


class _Purchase(NamedTuple):
    """What is reserved for a job; equal ones are only counted."""

    kind: str | None
    reserved_usd: Decimal | None
    night: datetime | None


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
        self._open: dict[str, _Purchase] = {}
        self._reserves: Counter[_Purchase] = Counter()
        self._reported_usd: defaultdict[datetime | None, Decimal] = defaultdict(Decimal)
        self._night: datetime | None = None

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

        What it counts for nothing is not in it (see `Money.price`).
        """
        short = (
            count * (self._at_least(one) - one.reserved_usd)
            for one, count in self._reserves.items()
            if one.reserved_usd is not None
        )
        return sum(short, _ZERO)

    def night_usd(self, now: datetime) -> Decimal:
        """Return what was bought in the night of a moment, reserves included."""
        night = self._begin_night(now)
        reserves = (
            count * self._at_least(one)
            for one, count in self._reserves.items()
            if one.night == night
        )
        return sum(reserves, self._reported_usd[night])

    def _at_least(self, purchase: _Purchase) -> Decimal:
        """Return a reserve, or what is known of the price of its kind if that is more."""
        reserved_usd = purchase.reserved_usd or _ZERO
        if purchase.kind is None:
            return reserved_usd
        model_id, input_ = self._examples[purchase.kind]
        model = self._models[model_id]
        price_usd = self._highest.get(purchase.kind) or model.estimate_usd(input_)
        if price_usd is None:
            price_usd = model.most_usd(input_)
        return max(reserved_usd, price_usd or _ZERO)

    def _begin_night(self, now: datetime) -> datetime | None:
        """Return the night that counts at a moment: a clock that is set back begins no other."""
        if self._night_of is not None:
            began = self._night_of(now)
            self._night = began if self._night is None else max(self._night, began)
        return self._night

    def _learn(self, record: Record) -> None:
        match record:
            case Submitting():
                self._learn_intent(record)
                return
            case Succeeded():
                cost_usd, kind = record.cost_usd, self._kinds.get(record.fingerprint)
                # A cost of nothing says as little as none: the next job may well cost something.
                if kind is not None and cost_usd:
                    self._highest[kind] = max(cost_usd, self._highest.get(kind, _ZERO))
            case Failed():
                cost_usd = record.cost_usd
            case Cancelled():
                cost_usd = record.cost_usd or _ZERO
            case Refused():
                cost_usd = _ZERO
            case Resolved() if record.cost_usd is not None:
                # A person knows better what was reserved for an unknown outcome.
                cost_usd = record.cost_usd
            case _:
                return
        if not isinstance(record, Resolved):
            self._kinds.pop(record.fingerprint, None)
        purchase = self._open.pop(record.fingerprint, None)
        if purchase is not None and cost_usd is not None:
            self._reserves[purchase] -= 1
            self._reported_usd[purchase.night] += cost_usd

    def _learn_intent(self, intent: Submitting) -> None:
        model, kind = self._models.get(intent.model), None
        if model is not None:
            kind = self._kinds[intent.fingerprint] = model.price_class(intent.input)
            self._examples.setdefault(kind, (intent.model, intent.input))
        if self._is_own(intent.fingerprint):
            # An unknown job that is sent again counts twice: it may be paid for twice.
            purchase = _Purchase(kind, intent.reserved_usd, self._begin_night(intent.at))
            self._open[intent.fingerprint] = purchase
            self._reserves[purchase] += 1
