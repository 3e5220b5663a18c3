"""What a ledger knows of one job: how far it has come, its request, its files, its money."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum

import msgspec

from batch_runner.records import SavedFile

ABANDONED = "abandoned"
"""The `reason` of a job that a person gave up."""


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


class Standing(StrEnum):
    """How a job stands, for people."""

    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"
    IN_FLIGHT = "in_flight"
    PENDING = "pending"
    CANCELLED = "cancelled"


class Standings(msgspec.Struct, kw_only=True):
    """How many jobs have each standing; the six counts after `jobs` add up to it."""

    jobs: int = 0
    done: int = 0
    failed: int = 0
    unknown: int = 0
    in_flight: int = 0
    pending: int = 0
    cancelled: int = 0

    def add(self, standing: Standing, count: int = 1) -> None:
        """Count more jobs."""
        self.jobs += count
        setattr(self, standing, getattr(self, standing) + count)

    def move(self, before: Standing, after: Standing, count: int) -> None:
        """Count jobs whose standing has changed."""
        setattr(self, before, getattr(self, before) - count)
        setattr(self, after, getattr(self, after) + count)


class JobState(msgspec.Struct, gc=False):
    """What the ledger knows of one fingerprint. `phase` RELEASED: a person allowed another POST.

    `reserved_usd` and `spent_usd` are what its last request adds to the totals.
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
        """Return whether the service may have a request of this job whose outcome is open."""
        return self.phase in _OPEN_PHASES

    @property
    def is_paid_for(self) -> bool:
        """Return whether a request of this job has been paid for, or may have been."""
        return self.may_have_been_bought or self.phase in (Phase.SUCCEEDED, Phase.DONE)

    @property
    def was_abandoned(self) -> bool:
        """Return whether a person gave this job up without knowing whether it was bought."""
        return self.phase is Phase.CANCELLED and self.reason == ABANDONED


def standing_of(known: JobState | None, *, running: bool) -> Standing:
    """Return how a job stands, by what the ledger knows; `running`: a run holds the ledger.

    Equal jobs share one JobState, so they have the same standing.
    """
    match None if known is None else known.phase:
        case None | Phase.RELEASED:
            return Standing.PENDING
        case Phase.REFUSED:
            is_pending = known is not None and known.again
            return Standing.PENDING if is_pending else Standing.FAILED
        case Phase.SUBMITTING:
            # While the run lives, its answer is on the way. After that nobody will read it.
            return Standing.IN_FLIGHT if running else Standing.UNKNOWN
        case Phase.IN_FLIGHT | Phase.SUCCEEDED:
            return Standing.IN_FLIGHT
        case phase:
            return Standing(phase)


_OPEN_PHASES = frozenset((Phase.SUBMITTING, Phase.UNKNOWN, Phase.IN_FLIGHT))
