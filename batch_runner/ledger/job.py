"""What a ledger knows of one job: how far it has come, its request, its files, its money."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum

import msgspec

from batch_runner.records import SavedFile

ABANDONED = "abandoned"
"""The reason of a job that a person gave up."""


class Phase(StrEnum):
    """How far a job has come, by its last record."""

    REFUSED = "refused"
    SUBMITTING = "submitting"
    UNKNOWN = "unknown"
    IN_FLIGHT = "in_flight"
    SUCCEEDED = "succeeded"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RELEASED = "released"


class JobState(msgspec.Struct, gc=False):
    """What the ledger knows of one fingerprint. `phase` RELEASED: a person allowed another POST.

    `reserved_usd` and `spent_usd` are what its latest request counts for in the totals.
    """

    key: str
    fingerprint: str
    phase: Phase = Phase.SUBMITTING
    path: str = ""
    model: str = ""
    request_id: str | None = None
    reserved_usd: Decimal | None = None
    spent_usd: Decimal = Decimal(0)
    reason: str | None = None
    message: str | None = None
    again: bool = False
    intent_offset_bytes: int = 0
    files: tuple[SavedFile, ...] = ()
    copies: tuple[tuple[SavedFile, ...], ...] = ()

    @property
    def may_have_been_bought(self) -> bool:
        """Tell whether a POST of this job may be at the service, its outcome still open."""
        return self.phase in _OPEN_PHASES

    @property
    def was_abandoned(self) -> bool:
        """Tell whether a person gave this job up, not knowing whether it was bought."""
        return self.phase is Phase.CANCELLED and self.reason == ABANDONED


_OPEN_PHASES = frozenset((Phase.SUBMITTING, Phase.UNKNOWN, Phase.IN_FLIGHT))
