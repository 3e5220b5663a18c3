"""The money of a ledger: what is spent, and what is reserved for requests that are still open.

Hides how amounts move from one to the other. What always holds: a reserved amount stays counted
until the service gives a better figure; a request counts once, however often its result is read,
and the last figure holds; a job that is submitted again after an unknown outcome counts twice,
because it may have been paid for twice.
"""

from __future__ import annotations

from decimal import Decimal

from batch_runner.ledger.job import JobState
from batch_runner.records import Submitting

ZERO = Decimal(0)


class Money:
    """The totals; each method changes them and the one job they change for."""

    def __init__(self) -> None:
        self.spent_usd = ZERO
        self.reserved_usd = ZERO
        # Purchases that were sent while their price was unknown: they count for nothing so far.
        self._unpriced: set[int] = set()

    @property
    def unpriced(self) -> int:
        """Return how many purchases have no price yet."""
        return len(self._unpriced)

    def reserve(self, job: JobState) -> None:
        """Count what an intent reserved, or remember that its price is unknown."""
        if job.reserved_usd is None:
            self._unpriced.add(_purchase(job.fingerprint, job.intent_offset_bytes))
        else:
            self.reserved_usd += job.reserved_usd

    def record(self, job: JobState, cost_usd: Decimal | None) -> None:
        """Count what the job's request cost; None: nobody said, so what was reserved is spent."""
        if cost_usd is not None and self._unpriced:
            self._unpriced.discard(_purchase(job.fingerprint, job.intent_offset_bytes))
        if job.reserved_usd is None and cost_usd is None:
            return
        reserved_usd, job.reserved_usd = job.reserved_usd or ZERO, None
        spent_usd = job.spent_usd + reserved_usd if cost_usd is None else cost_usd
        self.reserved_usd -= reserved_usd
        self.spent_usd += spent_usd - job.spent_usd
        job.spent_usd = spent_usd

    def begin_another(self, job: JobState) -> None:
        """Count the job's request as paid for: what is recorded next belongs to another request."""
        self.record(job, None)
        job.spent_usd = ZERO

    def is_unpriced(self, intent: Submitting, offset_bytes: int) -> bool:
        """Return whether what this intent bought, or may have bought, counts for nothing so far."""
        return _purchase(intent.fingerprint, offset_bytes) in self._unpriced

    def price(
        self, job: JobState | None, cost_usd: Decimal, intent: Submitting, offset_bytes: int
    ) -> None:
        """Count an unpriced purchase at a price that became known after it was sent."""
        self._unpriced.remove(_purchase(intent.fingerprint, offset_bytes))
        is_open = job is not None and job.may_have_been_bought
        if job is not None and is_open and job.intent_offset_bytes == offset_bytes:
            job.reserved_usd = cost_usd
            self.reserved_usd += cost_usd
        else:
            self.spent_usd += cost_usd


def require_amount(amount: Decimal | None) -> None:
    """Raise ValueError unless this is an amount of money, or none."""
    if amount is not None and not (amount.is_finite() and amount >= 0):
        raise ValueError(f"{amount} USD is not an amount")


def _purchase(fingerprint: str, offset_bytes: int) -> int:
    """Return what stands for one purchase: a number, because there may be a million of them."""
    return hash((fingerprint, offset_bytes))
