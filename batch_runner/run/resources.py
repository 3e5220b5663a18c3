"""What a run works with, and what it may do.

Hides nothing: plain values that a run passes to the steps of its jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import msgspec

from batch_runner.clock import Clock
from batch_runner.errors import BatchRunnerError
from batch_runner.files.download import Downloads
from batch_runner.files.storage import Storage
from batch_runner.ledger.file import Ledger
from batch_runner.manifest.form import Limits, Retry, Window
from batch_runner.pacing.pacer import Pacer
from batch_runner.records import Job, Record
from batch_runner.run.pictures_in import PicturesIn
from batch_runner.run.prices import Prices
from batch_runner.run.stop import Ending
from batch_runner.run.survey import Survey
from batch_runner.service.call import Service


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """What a run works with, and what it may do.

    - `other_ledgers` are those of the batch's other shards; their runs may be writing to them.
    - `submit_limit` bounds the submits of this run alone.
    - `listener` gets every record, right after the ledger took it; it must not block.
    - `orphans` are the fingerprints of jobs that have left the manifest.
    - `survey` is the plan in figures; the run keeps its standings up to date.
    - `ending` ends the run, from inside and outside.
    - `unpriced` returns why a job without a known price must not be bought under a budget.
    """

    service: Service
    downloads: Downloads
    storage: Storage
    pictures: PicturesIn
    ledger: Ledger
    pacer: Pacer
    clock: Clock
    prices: Prices
    other_ledgers: tuple[Path, ...] = ()
    limits: Limits
    retry: Retry
    window: Window | None = None
    submit_limit: int | None = None
    wait_for_window: bool = False
    unpriced: Callable[[Job], BatchRunnerError]
    ending: Ending = msgspec.field(default_factory=Ending)
    listener: Callable[[Record], None]
    notice: Callable[[str], None]
    orphans: Collection[str] = ()
    survey: Survey = msgspec.field(default_factory=Survey)
