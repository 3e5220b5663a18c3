"""What a run works with and may do, what it has done, and why it went no further.

Hides nothing: plain values that pass between a run, its jobs and those who watch both.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec

from batch_runner.clock import Clock
from batch_runner.files.download import Downloads
from batch_runner.files.storage import Storage
from batch_runner.files.upload import Uploads
from batch_runner.ledger.file import Ledger
from batch_runner.manifest.form import Limits, Retry, Window
from batch_runner.pacing.pacer import Pacer
from batch_runner.records import Record
from batch_runner.run.prices import Prices
from batch_runner.service.call import Service

Listener = Callable[[Record], None]
"""Receives every record, right after the ledger took it; must not block."""


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """What a run works with; `uploads` is None if nothing is ever uploaded.

    `other_ledgers` are those of the batch's other shards, which their runs may be writing.
    """

    service: Service
    downloads: Downloads
    storage: Storage
    uploads: Uploads | None
    ledger: Ledger
    pacer: Pacer
    clock: Clock
    prices: Prices
    other_ledgers: tuple[Path, ...] = ()


class Stop(msgspec.Struct, frozen=True):
    """Why no further submits are made: a word for machines, a sentence for people."""

    reason: str
    message: str
    hint: str | None = None


class Tally(msgspec.Struct):
    """What became of the manifest's jobs in this run, counted as it happens.

    `unsaved` counts those that are done by the ledger and have no file in place.
    """

    submitted: int = 0
    saved: int = 0
    failed: int = 0
    unknown: int = 0
    cancelled: int = 0
    unsaved: int = 0
    orphans: int = 0
    orphans_left: int = 0


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a run may do, and until when; `submit_limit` bounds the submits of this run alone."""

    limits: Limits
    retry: Retry
    window: Window | None = None
    submit_limit: int | None = None
    until: datetime | None = None
    wait_for_window: bool = False
