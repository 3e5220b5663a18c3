"""What a run works with, opened in the right order and closed again.

Hides how the pieces are put together. What always holds: whatever happens after the ledger was
opened, it is closed with everything durable that could be made so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from batch_runner.clock import Clock
from batch_runner.files.disk import require_utf8_names, storage_error, try_folder
from batch_runner.files.download import Downloads
from batch_runner.files.upload import Uploads
from batch_runner.ledger.file import Ledger
from batch_runner.manifest.form import Limits
from batch_runner.pacing.pacer import Pacer
from batch_runner.run.batch import Batch
from batch_runner.run.budget import unpriced_error
from batch_runner.run.pictures_in import PicturesIn
from batch_runner.run.pool import Runner
from batch_runner.run.resources import Resources
from batch_runner.shards.quota import recent_submits

Notice = Callable[[str], None]


def ignore(_: object) -> None:
    """Stand in for a listener that nobody passed."""


@asynccontextmanager
async def open_ledger(
    batch: Batch, notice: Notice = ignore, clock: Clock | None = None
) -> AsyncIterator[Ledger]:
    """Hold the connection to the service and the ledger; both are closed whatever happens."""
    async with batch.service:
        with batch.ledgers.opened((clock or Clock()).now()) as ledger:
            if ledger.cut_bytes:
                notice(f"{ledger.path}: cut a torn last line of {ledger.cut_bytes} bytes")
            yield ledger


def open_downloads(batch: Batch) -> Downloads:
    """Return what downloads outputs to the batch's storage; open it with `async with`."""
    return Downloads(
        batch.storage,
        hosts=(*batch.manifest.output.hosts, batch.service.host),
        allow_loopback=batch.service.is_local,
        proxies=batch.options.proxies,
    )


@asynccontextmanager
async def open_uploads(
    batch: Batch, on_upload: Callable[[int], None], notice: Notice, clock: Clock
) -> AsyncIterator[Uploads | None]:
    """Hold what uploads pictures; None in a rehearsal, which touches no bucket."""
    if batch.options.rehearsal:
        yield None
        return
    uploads = Uploads(
        batch.buckets,
        on_upload=on_upload,
        notice=notice,
        clock=clock,
        service_is_here=batch.service.is_local,
    )
    try:
        yield uploads
    finally:
        if uploads.under_way:
            # A call to a store cannot be broken off, and what was sent so far is not lost.
            notice(f"waiting for {uploads.under_way} uploads under way")
        await asyncio.to_thread(uploads.close)


def try_disks(batch: Batch, ledger: Ledger, stems: Collection[str]) -> list[str]:
    """Try to keep files before anything is bought; return what cannot be promised here."""
    require_utf8_names()
    storage, folder = batch.storage, ledger.path.parent
    notes = []
    if not storage.prepare(stems):
        notes.append(
            f"{storage}: this file system cannot sync files: a power failure may damage the"
            " newest pictures (batch-runner check finds them)"
        )
    try:
        if not try_folder(folder):
            notes.append(
                f"{folder}: this file system cannot sync files: a power failure may lose the"
                " newest lines of the ledger, and their jobs could be bought again (set"
                " output.ledger to a folder on a local disk)"
            )
    except OSError as error:
        raise storage_error(folder, error) from error
    return notes


def new_runner(
    batch: Batch,
    ledger: Ledger,
    downloads: Downloads,
    limits: Limits,
    clock: Clock,
    *,
    uploads: Uploads | None = None,
    **more: Any,
) -> Runner:
    """Return the runner of a batch, with all that it works with; `more` are other Resources."""
    pacer = _new_pacer(batch, ledger, limits, clock)
    never = asyncio.Event()
    pictures = PicturesIn(
        batch.service,
        uploads,
        bucket=batch.uploads,
        inline=batch.manifest.uploads_inline,
        turn=lambda: pacer.turn_to_poll(never),
        is_fetchable=downloads.has,
        clock=clock,
    )
    return Runner(
        Resources(
            service=batch.service,
            downloads=downloads,
            storage=batch.storage,
            pictures=pictures,
            ledger=ledger,
            pacer=pacer,
            clock=clock,
            prices=batch.prices,
            other_ledgers=tuple(batch.ledgers.other_paths()),
            limits=limits,
            retry=batch.manifest.retry,
            window=batch.window,
            submit_limit=batch.options.limit,
            wait_for_window=batch.options.wait,
            unpriced=partial(unpriced_error, batch),
            **more,
        )
    )


def _new_pacer(batch: Batch, ledger: Ledger, limits: Limits, clock: Clock) -> Pacer:
    pacer, now = Pacer(limits, batch.manifest.retry, clock), clock.now()
    recent = recent_submits(ledger.state.submit_times, ledger.header, limits.submits.count)
    pacer.remember_submits((now - at).total_seconds() for at in recent)
    return pacer
